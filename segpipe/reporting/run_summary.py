"""What the terminal shows at the end of a training."""

from pathlib import Path

from segpipe.config.quoting import invocation, typed
from segpipe.reporting.rendering import show_verdict
from segpipe.reporting.run_record import RunRecord
from segpipe.terminal import relative_to_cwd, show_next
from segpipe.verdict import judge


def show_run(folder: Path) -> None:
    """Print where to look and what to type next, and the verdict on the network as the last line.

    Args:
        folder: of a run that is scored.
    """
    shown = relative_to_cwd(folder)
    show_next(
        [
            ("report", shown / "report.html"),
            ("network", shown / "checkpoints" / "best.ckpt"),
            (
                "predict",
                f"{invocation('predict')} {typed('checkpoint', shown)} input=SCANS output=MASKS",
            ),
        ]
    )
    verdict = judge(RunRecord(folder).scores, "training")
    if verdict is not None:
        show_verdict(verdict)
