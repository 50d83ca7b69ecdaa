"""The verdict on a set of scores: a level, one sentence, and what to do about weak labels.

It is computed here alone: pages, the terminal, `report.json` and studies only show it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from segpipe.metrics import Score, mean_dice_of, summarise
from segpipe.text import count

# A mask of the right size at a random place has the Dice that is the label's share of the scan, and
# few labels fill more than a tenth: up to here a score is no sign of anything learnt.
NOTHING_DICE = 0.1
# Below it prediction and truth share less than a third of what either of them covers (IoU 1/3).
WEAK_DICE = 0.5
FOUND_DICE = 0.01  # of a case, below which a few stray voxels meet the label by chance
NAMED = 5  # labels that a sentence names at most

Level = Literal["works", "weak", "nothing"]
Colour = Literal["good", "weak", "bad"]
COLOURS: dict[Level, Colour] = {"works": "good", "weak": "weak", "nothing": "bad"}
Scored = Literal["training", "batch", "masks"]
NOUNS: dict[Scored, str] = {"training": "validation case", "batch": "scan", "masks": "case"}
TITLES: dict[tuple[Level, Scored], str] = {
    ("works", "training"): "Works",
    ("weak", "training"): "Weak",
    ("nothing", "training"): "Has learnt nothing",
    ("works", "batch"): "Agrees with the truth",
    ("weak", "batch"): "Weak",
    ("nothing", "batch"): "Does not agree with the truth",
    ("works", "masks"): "Agrees with the truth",
    ("weak", "masks"): "Weak",
    ("nothing", "masks"): "Does not agree with the truth",
}
CHECK_LABELS = (
    "Check the files with mode=doctor and the same data keys: do the ids of data.labels belong to "
    "these names, and does each mask lie on its scan?"
)
SAME_IDS = (
    "Look at the pictures: do ids mean the same in the masks as in the truths (labels={name:id})?"
)
ADVICE: dict[tuple[Level, Scored], list[str]] = {
    ("works", "training"): [],
    ("weak", "training"): [
        "Train longer (trainer.max_time), with more patches on labels (plan.foreground) or more "
        "cases that have {labels}.",
        "Look at {labels} in the pictures of the worst cases: is the truth drawn correctly?",
        CHECK_LABELS,
    ],
    ("nothing", "training"): [
        "Look at the curves: a loss that still falls needs a longer training (trainer.max_time); "
        "one that does not fall at all may need another optim.lr.",
        CHECK_LABELS,
    ],
    ("works", "batch"): ["Look at the first of these scans, the worst, before masks are used."],
    ("weak", "batch"): [
        "Look at {labels} in the pictures: do names and ids mean the same in the truth as in the "
        "checkpoint?",
        "See what the network reached in its own validation: report.html of its run.",
    ],
    ("nothing", "batch"): [
        "Look at the pictures: does the truth lie on the scan, and do its ids mean the same as the "
        "checkpoint's labels?",
        "Compare the scans with those of the training: channels and their order, units of the "
        "intensities, spacing and orientation.",
    ],
    ("works", "masks"): [],
    ("weak", "masks"): [SAME_IDS],
    ("nothing", "masks"): [SAME_IDS, "Check that masks and truths of one name are of one case."],
}


@dataclass(frozen=True)
class Judgement:
    """The answer to a question, as a box at the top of a page and the last line of a command.

    Attributes:
        level: `works` where the answer is good news, `weak` where something is wanting, `nothing`
            where there is none.
        sentence: the answer in words.
        advice: what to look at or to do next, a sentence each.
    """

    level: Level
    sentence: str
    advice: Sequence[str]

    @property
    def colour(self) -> Colour:
        """Return the colour in which it is shown."""
        return COLOURS[self.level]

    def to_values(self) -> dict[str, Any]:
        """Return the fields by name, as JSON files hold them."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict(Judgement):
    """What a set of scores says of a network.

    It is `weak` where a label was never found or has a low Dice, and `nothing` where no label is
    above what chance would reach; a network that works needs no advice.

    Attributes:
        mean_dice: mean over the targets of means over cases; NaN where nothing was scored.
        cases: number of scored cases.
        never_found: targets whose Dice is below `FOUND_DICE` in every case that has them.
        weak: other targets with a mean Dice below `WEAK_DICE`.
        not_judged: targets that no case has.
    """

    mean_dice: float
    cases: int
    never_found: Sequence[str]
    weak: Sequence[str]
    not_judged: Sequence[str]

    @property
    def colour(self) -> Colour:
        """Return the colour in which it is shown: a label that was never found is bad news."""
        return "bad" if self.never_found else super().colour


@dataclass(frozen=True)
class _Target:
    """The scores of one target: cases that have it, those in which it was found, mean Dice."""

    name: str
    present: int
    found: int
    dice: float


def judge(scores: Sequence[Score], scored: Scored) -> Verdict | None:
    """Return the verdict on scores; None where no case has any target.

    A target is judged by the cases whose truth has it. False alarms in other cases lower its mean
    Dice, as they do in every table.

    Args:
        scores: one per case and target.
        scored: `training` for validation cases of a run, `batch` for predicted scans, `masks` for
            those of any tool.
    """
    targets = _targets(scores)
    judged = [target for target in targets if target.present]
    if not judged:
        return None
    never_found = [target.name for target in judged if not target.found]
    weak = [target.name for target in judged if target.found and target.dice < WEAK_DICE]
    level: Level = "weak" if never_found or weak else "works"
    if all(target.dice < NOTHING_DICE for target in judged):
        level = "nothing"
    cases = len({score.case for score in scores})
    mean = summarise(scores)[-1].dice
    clauses = [*_reasons(level, judged), f"mean Dice {mean:.3f} in {count(cases, NOUNS[scored])}"]
    if level == "works" and len(judged) > 1:
        worst = min(judged, key=lambda target: target.dice)
        clauses.append(f"lowest: {worst.name}, {worst.dice:.3f}")
    not_judged = [target.name for target in targets if not target.present]
    if not_judged:
        clauses.append(f"in no case, so not judged: {_names(not_judged)}")
    sentence = f"{TITLES[level, scored]}: {'; '.join(clauses)}."
    concerned = _names([*never_found, *weak])
    advice = [line.replace("{labels}", concerned) for line in ADVICE[level, scored]]
    return Verdict(level, sentence, advice, mean, cases, never_found, weak, not_judged)


def _targets(scores: Sequence[Score]) -> list[_Target]:
    """Return what the scores say of each target."""
    targets: list[_Target] = []
    for name in dict.fromkeys(score.label for score in scores):
        of_target = [score for score in scores if score.label == name]
        # scores of a version without volumes have NaN, and count where they have a Dice
        present = [s for s in of_target if s.truth_ml != 0 and not np.isnan(s.dice)]
        found = sum(score.dice >= FOUND_DICE for score in present)
        targets.append(_Target(name, len(present), found, mean_dice_of(of_target)))
    return targets


def _reasons(level: Level, judged: Sequence[_Target]) -> list[str]:
    """Return which labels a level below `works` is due to."""
    missing = [target for target in judged if not target.found]
    if level == "nothing":
        if len(missing) < len(judged):
            return [f"no label reaches a Dice of {NOTHING_DICE}"]
        return [f"not one label was found: {_names([target.name for target in judged])}"]
    reasons: list[str] = []
    if missing:
        names = [f"{target.name} (0 of {count(target.present, 'case')})" for target in missing]
        reasons.append(f"never found: {_names(names)}")
    low = [target for target in judged if target.found and target.dice < WEAK_DICE]
    if low:
        names = [f"{target.name} {target.dice:.2f}" for target in low]
        reasons.append(f"low Dice: {_names(names)}")
    return reasons


def _names(names: Sequence[str]) -> str:
    """Return names for a sentence, the first few of them."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
