"""What the terminal shows at the end of a training."""

import logging
from pathlib import Path

from segpipe.reporting.next_steps import next_steps
from segpipe.reporting.rendering import show_verdict
from segpipe.reporting.run_record import RunRecord
from segpipe.terminal import relative_to_cwd, show_next
from segpipe.verdict import judge

log = logging.getLogger("segpipe")


def show_run(folder: Path) -> None:
    """Print where to look and what to type next, and the verdict on the network as the last line.

    Args:
        folder: the folder of a run that is scored.
    """
    shown = relative_to_cwd(folder)
    run = RunRecord(folder)
    verdict = judge(run.scores, "training")
    steps = next_steps(run, verdict)
    files = [("report", shown / "report.html"), ("network", shown / "checkpoints" / "best.ckpt")]
    predict = [("predict", steps.predict)] if steps.predict else []
    show_next([*files, *predict])
    for note in steps.notes:
        log.info("%s", note)
    if verdict is not None:
        show_verdict(verdict)
