"""What the terminal shows of a batch of predictions when it is done."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segpipe.prediction.mask_warnings import note_of_training_scans
from segpipe.prediction.records import ScanRecord, scores_of, units_of
from segpipe.reporting.rendering import show_scores, show_verdict
from segpipe.terminal import show_next, show_table
from segpipe.text import count
from segpipe.verdict import judge

log = logging.getLogger("segpipe")


@dataclass
class Outcomes:
    """What a call has done.

    Attributes:
        new: scans that it has segmented.
        failed: scans that have failed in it, and did not fail so before.
        unchanged: scans whose masks were up to date, as of an earlier call or of another one.
        known: scans that fail as they did in an earlier call.
        incomplete: number of the new ones that lack a file, or a score though they have a truth.
        incomplete_before: likewise of the unchanged ones.
    """

    new: list[ScanRecord] = field(default_factory=list)
    failed: list[ScanRecord] = field(default_factory=list)
    unchanged: list[ScanRecord] = field(default_factory=list)
    known: list[ScanRecord] = field(default_factory=list)
    incomplete: int = 0
    incomplete_before: int = 0

    @property
    def settled(self) -> int:
        """Return the number of scans that are done or have failed."""
        return len(self.new) + len(self.failed) + len(self.unchanged) + len(self.known)

    def __str__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        known = count(len(self.known), "known failure")
        return f"{len(self.new)} new, {len(self.unchanged)} unchanged{failed}, {known}"


def show_batch(outcomes: Outcomes, names: Sequence[str], folder: str, truth: Path | None) -> None:
    """Print volumes, scores and a verdict of what this call has done, what failed, and the files.

    Args:
        outcomes: the outcomes of the batch's scans.
        names: the names of the labels but the background.
        folder: the folder of the masks, or its address.
        truth: folder of the labels that they were scored against; None: a table names them.
    """
    rows = []
    for record in sorted(outcomes.new, key=lambda record: record.name):
        units = record.units
        volumes = map(units.of_volume, record.volumes_ml)
        rows.append([record.name, *[f"{volume:.{units.digits}f}" for volume in volumes]])
    if rows:
        show_table(f"volumes, {units_of(outcomes.new).volume}", ["scan", *names], rows)
    scores = scores_of(outcomes.new)
    if scores:
        title = f"{count(len(rows), 'scan')} against {truth or 'the labels of the table'}"
        show_scores(scores, title, units_of(outcomes.new))
    masks = len(outcomes.new) + len(outcomes.unchanged)
    log.info("%s", outcomes)
    log.info("%d of %s written to %s", masks, count(outcomes.settled, "mask"), folder)
    show_views(folder)
    verdict = judge(scores, "batch")
    note = note_of_training_scans(outcomes.new)
    if note:
        log.warning("%s", note)
    if verdict is not None:
        show_verdict(verdict)
    for record in outcomes.failed:
        log.error("failed: %s", record.reason)


def show_views(folder: str) -> None:
    """Print where the page and the table are."""
    show_next([("look at", f"{folder}/index.html"), ("table", f"{folder}/predictions.csv")])
