"""What the scores of a run do not say, and what to type next: for page, terminal and JSON."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.config.quoting import prediction_with
from segpipe.reporting.run_record import RunRecord
from segpipe.terminal import relative_to_cwd
from segpipe.text import count
from segpipe.verdict import Verdict

FEW_CASES = 30  # from which on the mean of a batch says more than one of its cases


@dataclass(frozen=True)
class NextSteps:
    """What follows a run that is scored.

    Attributes:
        notes: what to know before its scores are relied upon, a sentence each.
        predict: the command that segments scans with it; empty where it has learnt nothing.
    """

    notes: Sequence[str]
    predict: str


def next_steps(run: RunRecord, verdict: Verdict | None) -> NextSteps:
    """Return what follows a run with this verdict; nothing where it is not scored."""
    if verdict is None:
        return NextSteps([], "")
    notes = []
    if verdict.level != "nothing":
        notes = list(filter(None, [_same_cases(verdict.cases), _still_rising(run)]))
    where = relative_to_cwd(run.folder)
    return NextSteps(notes, "" if verdict.level == "nothing" else prediction_with(where))


def _same_cases(cases: int) -> str:
    """Return that few cases have also chosen the checkpoint; empty where they are many."""
    if cases >= FEW_CASES:
        return ""
    those = "this validation case" if cases == 1 else f"these {count(cases, 'validation case')}"
    return (
        f"The best checkpoint was chosen on {those}, so new scans may score lower: predict scans "
        "of other patients with truth=LABELS added, or train folds (mode=crossval)."
    )


def _still_rising(run: RunRecord) -> str:
    """Return that the last of several validations was the best; empty where it was not."""
    dice = [row["dice/mean"] for row in run.metrics if np.isfinite(row.get("dice/mean", np.nan))]
    if len(dice) < 2 or dice[-1] < max(dice):
        return ""
    return "The last validation was the best one: a longer training (trainer.max_time) may help."
