"""`index.html` of a folder of masks: all scans segmented into it, the failed ones first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segpipe import __version__
from segpipe.config.predict import Predict
from segpipe.metrics import tolerance_text
from segpipe.prediction.mask_warnings import note_of_training_scans
from segpipe.prediction.records import ScanRecord, scores_of, units_of
from segpipe.reporting.page import (
    Link,
    Page,
    Picture,
    Table,
    embed,
    embed_all,
    write_page,
)
from segpipe.reporting.prediction_tables import done_table, failed_table, rank
from segpipe.reporting.prediction_viewer import viewer_of
from segpipe.reporting.viewer import Viewer
from segpipe.text import NOT_KNOWN, count
from segpipe.verdict import Verdict, judge

WIDTH = 1000  # pixels of a picture inside the page
ROWS = 300  # of a page: one of more is slow to open and to sort
PICTURES_MIB = 24.0  # beyond this, pictures are linked: a page of more is slow to open


@dataclass(frozen=True)
class Index(Page):
    """The content of `index.html`.

    Attributes:
        verdict: on the scores; None where there is no truth.
        notes: what to know before they are relied upon, a sentence each.
        facts: name and text.
        failed: scan and reason; None where none failed.
        scans: those that are done; None where none is.
        pictures: how many pictures are inside the page, and where the others are.
        volumes: predicted against true volumes; None where there is no truth.
        viewer: the viewer of volumes, where it is requested.
        files: beside the page.
    """

    verdict: Verdict | None
    notes: Sequence[str]
    facts: Sequence[tuple[str, str]]
    failed: Table | None
    scans: Table | None
    pictures: str
    volumes: Picture | None
    viewer: Viewer | None
    files: Sequence[Link]


def write_index(
    folder: Path,
    records: Sequence[ScanRecord],
    requested: int,
    options: Predict,
    is_final: bool = True,
) -> None:
    """Write `index.html`, with the results of earlier calls into this folder too.

    Beyond `ROWS` scans the others are on pages of their own, `index_2.html` and so on.

    Args:
        folder: the folder of the masks.
        records: the records of all scans that were segmented into it.
        requested: number of scans of this call.
        options: the options of this call.
        is_final: whether the pages after the first are written too.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    failed = [record for record in records if record.failed]
    done = [record for record in records if not record.failed]
    failed.sort(key=lambda record: record.name)
    done.sort(key=lambda record: (rank(record), record.name))
    ordered = failed + done
    pages = max(1, math.ceil(len(ordered) / ROWS))
    lead = f"{count(len(done), 'scan')} done, {len(failed)} failed"
    lead = f"{lead}; the last call asked for {requested}."
    verdict = judge(scores_of(done), "batch")
    notes = list(filter(None, [note_of_training_scans(done)]))
    volumes = _draw_volumes(folder, done) if is_final else None
    for number in range(pages if is_final else 1):
        shown = ordered[number * ROWS : (number + 1) * ROWS]
        position = _Position(number, pages)
        page = _index(folder, shown, lead, verdict, notes, volumes, options, position)
        write_page(folder / _page_name(number), "index.html", page)


@dataclass(frozen=True)
class _Position:
    """Which of the pages of a folder of masks one is, counted from 0."""

    number: int
    pages: int

    @property
    def links(self) -> list[Link]:
        """Return links to the other pages."""
        numbers = {0, self.number - 1, self.number + 1, self.pages - 1} - {self.number}
        found = []
        for number in sorted(numbers & {*range(self.pages)}):
            found.append(Link(f"page {number + 1} of {self.pages}", _page_name(number)))
        return found


def _page_name(number: int) -> str:
    return f"index_{number + 1}.html" if number else "index.html"


def _index(
    folder: Path,
    shown: Sequence[ScanRecord],
    lead: str,
    verdict: Verdict | None,
    notes: Sequence[str],
    volumes: Picture | None,
    options: Predict,
    position: _Position,
) -> Index:
    """Return the content of one page."""
    failed = [record for record in shown if record.failed]
    done = [record for record in shown if not record.failed]
    pictures = _pictures(folder, done) if position.number == 0 else {}
    scored = any(record.scores for record in done)
    has_viewer = options.page.viewer and position.number == 0
    return Index(
        title=f"Predictions in {folder.resolve().name}",
        lead=lead,
        verdict=verdict,
        notes=notes,
        facts=_facts(options),
        failed=failed_table(failed) if failed else None,
        scans=done_table(done, pictures, scored) if done else None,
        pictures=_pictures_note(pictures, done),
        volumes=volumes if position.number == 0 else None,
        viewer=viewer_of(folder, done, options) if has_viewer else None,
        files=[*position.links, *_files(folder, scored)],
    )


def _facts(options: Predict) -> list[tuple[str, str]]:
    """Return the options that a reader of the page should know."""
    cleaning = []
    if options.keep_largest:
        cleaning.append(f"keep_largest {', '.join(options.keep_largest)}")
    if options.min_volume_ml:
        cleaning.append(f"min_volume_ml {options.min_volume_ml}")
    if options.labels:
        cleaning.append(f"labels {', '.join(options.labels)}")
    mirrored = options.mirror_axes
    if not isinstance(mirrored, str):
        mirrored = ", ".join(map(str, mirrored)) or "none"
    return [
        ("checkpoint", ", ".join(map(str, options.checkpoint_paths)) or NOT_KNOWN),
        ("input", str(options.input or NOT_KNOWN)),
        ("truth", str(options.truth or "not given")),
        ("tolerance of NSD", tolerance_text(options)),
        ("overlap of windows", f"{options.overlap:g}"),
        ("mirrored along axes", mirrored),
        ("masks cleaned", "; ".join(cleaning) or "no"),
        ("segpipe", __version__),
    ]


def _files(folder: Path, scored: bool) -> list[Link]:
    """Return links to the files beside the page."""
    names = ["predictions.csv", "manifest.json"]
    if scored:
        names.append("scores.csv")
    return [Link(name, name) for name in names if (folder / name).is_file()]


def _pictures(folder: Path, done: Sequence[ScanRecord]) -> dict[str, Picture]:
    """Return the pictures that are inside the page, by the scan's name."""
    files = {record.name: folder / record.picture for record in done}
    return embed_all(files, "mask over the scan in three slices", WIDTH, PICTURES_MIB)


def _pictures_note(pictures: Mapping[str, Picture], done: Sequence[ScanRecord]) -> str:
    """Return how many pictures are inside the page, and where the others are."""
    drawn = sum(record.drawn for record in done)
    if not drawn:
        return "No pictures were drawn (overlays=false)."
    kib = sum(len(picture.source) for picture in pictures.values()) / 1024
    mean_kib = kib / max(1, len(pictures))
    return (
        f"Pictures inside this page: {len(pictures)} of {drawn}, {mean_kib:.0f} KiB a scan; beyond "
        f"{PICTURES_MIB:g} MiB they are linked from overlays/. In full size: overlays/."
    )


def _draw_volumes(folder: Path, done: Sequence[ScanRecord]) -> Picture | None:
    scores = scores_of(done)
    if not scores:
        return None
    file = folder / ".segpipe" / "volumes.png"  # beside masks, a scan might have its name
    # imported late: matplotlib takes longer to import than a small scan to segment
    from segpipe.reporting.agreement import VOLUMES_CAPTION, draw_volumes

    if not draw_volumes(scores, file, units_of(done)):
        return None
    return embed(file, "predicted against true volumes of each label", WIDTH, VOLUMES_CAPTION)
