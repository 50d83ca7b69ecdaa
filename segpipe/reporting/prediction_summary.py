"""What the terminal shows of a batch of predictions when it is done."""

import logging
from collections.abc import Sequence
from pathlib import Path

from segpipe.prediction.records import ScanRecord, scores_of, units_of
from segpipe.reporting.rendering import show_scores, show_verdict
from segpipe.terminal import show_next, show_table
from segpipe.text import count
from segpipe.verdict import judge

log = logging.getLogger("segpipe")


def show_batch(
    records: Sequence[ScanRecord], names: Sequence[str], folder: Path, truth: Path | None
) -> None:
    """Print volumes, scores, where the files are, the verdict on the scores, and what failed.

    Args:
        records: of the batch's scans.
        names: of the labels but the background.
        folder: of the masks.
        truth: folder of the labels that they were scored against; None: a table names them.
    """
    done = [record for record in records if not record.failed]
    rows = []
    for record in done:
        units = record.units
        volumes = map(units.of_volume, record.volumes_ml)
        rows.append([record.name, *[f"{volume:.{units.digits}f}" for volume in volumes]])
    if rows:
        show_table(f"volumes, {units_of(done).volume}", ["scan", *names], rows)
    scores = scores_of(done)
    if scores:
        title = f"{count(len(done), 'scan')} against {truth or 'the labels of the table'}"
        show_scores(scores, title, units_of(done))
    log.info("%d of %d masks written to %s", len(done), len(records), folder)
    page = folder / "index.html"
    show_next([("look at", page), ("table", folder / "predictions.csv")])
    verdict = judge(scores, "batch")
    if verdict is not None:
        show_verdict(verdict)
    for record in records:
        if record.failed:
            log.error("failed: %s", record.reason)
