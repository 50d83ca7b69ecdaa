"""`index.html` of a folder of masks: all scans segmented into it, the failed ones first."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from segpipe import __version__
from segpipe.config.predict import Predict
from segpipe.data.prepare import model_space
from segpipe.errors import SegpipeError
from segpipe.io.volumes import load, read
from segpipe.plan import Plan
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.predictor import Prediction
from segpipe.prediction.records import STAGES, ScanRecord, scores_of, units_of
from segpipe.reporting.page import (
    Cell,
    Column,
    Link,
    Page,
    Picture,
    Sorted,
    Table,
    embed_all,
    write_page,
)
from segpipe.reporting.viewer import Viewer, ViewerBudget, ViewerCase, make_viewer, viewer_case
from segpipe.terminal import progress_bar
from segpipe.text import count
from segpipe.verdict import Verdict, judge

log = logging.getLogger("segpipe")
WIDTH = 800  # pixels of a picture inside the page
PICTURES_MIB = 24.0  # beyond this, pictures are linked: a page of more is slow to open
SPACING_RATIO = 3.0  # to the training's spacing, from which a scan is worth a look
AXES = ("left-right", "back-front", "foot-head")


@dataclass(frozen=True)
class Index(Page):
    """The content of `index.html`.

    Attributes:
        verdict: on the scores; None where there is no truth.
        facts: name and text.
        failed: scan and reason; None where none failed.
        scans: those that are done; None where none is.
        pictures: how many pictures are inside the page, and where the others are.
        viewer: of volumes, where it is requested.
        files: beside the page.
    """

    verdict: Verdict | None
    facts: Sequence[tuple[str, str]]
    failed: Table | None
    scans: Table | None
    pictures: str
    viewer: Viewer | None
    files: Sequence[Link]


def warnings_for(prediction: Prediction, record: ScanRecord, plan: Plan) -> list[str]:
    """Return what a person should know of a mask that is done.

    It names how it was computed, where that was unusual, labels that were not found, a spacing far
    from that of training, and channels of one value.
    """
    warnings = [record.note] if record.note else []
    volumes = zip(record.labels, record.voxels, strict=True)
    missing = [name for name, voxels in volumes if not voxels]
    if missing:
        warnings.append(f"finds no {', no '.join(missing)}")
    grid = prediction.grid
    turned = model_space(plan).orientation(grid)
    spacings = zip(
        turned.order, turned.along(grid.spacing_mm.tolist()), plan.spacing_mm, strict=True
    )
    for scan_axis, mm, model_mm in spacings:
        if model_mm is None or 1 / SPACING_RATIO <= mm / model_mm <= SPACING_RATIO:
            continue
        axis = AXES[grid.ras.order.index(scan_axis)]
        edges = f"voxels of {mm:.3g} mm {axis}, but the network sees {model_mm:.3g} mm"
        warnings.append(record.units.in_text(edges))
    for number, channel in enumerate(prediction.scan.native.as_tensor()):
        if channel.min() == channel.max():
            warnings.append(f"every voxel of channel {number} is {float(channel.flatten()[0]):g}")
    return warnings


def write_index(
    folder: Path, records: Mapping[str, ScanRecord], requested: int, options: Predict
) -> None:
    """Write `index.html`, with the results of earlier calls into this folder too.

    Args:
        folder: of the masks.
        records: of all scans that were segmented into it, by name.
        requested: number of scans of this call.
        options: of this call.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    failed = [record for record in records.values() if record.failed]
    done = [record for record in records.values() if not record.failed]
    done.sort(key=lambda record: (_mean_dice(record), record.name))
    pictures = _pictures(folder, done)
    scored = any(record.scores for record in done)
    lead = f"{count(len(done), 'scan')} done, {len(failed)} failed"
    page = Index(
        title=f"Predictions in {folder.resolve().name}",
        lead=f"{lead}; the last call asked for {requested}.",
        verdict=judge(scores_of(done), "batch"),
        facts=_facts(options),
        failed=_failed_table(failed) if failed else None,
        scans=_done_table(done, pictures, scored) if done else None,
        pictures=_pictures_note(pictures, done),
        viewer=_viewer(folder, done, options) if options.page.viewer else None,
        files=_files(folder, scored),
    )
    write_page(folder / "index.html", "index.html", page)


def _facts(options: Predict) -> list[tuple[str, str]]:
    """Return the options that a reader of the page should know."""
    assert options.checkpoint is not None
    cleaning = []
    if options.keep_largest:
        cleaning.append(f"keep_largest {', '.join(options.keep_largest)}")
    if options.min_volume_ml:
        cleaning.append(f"min_volume_ml {options.min_volume_ml}")
    if options.labels:
        cleaning.append(f"labels {', '.join(options.labels)}")
    return [
        ("checkpoint", ", ".join(map(str, options.checkpoint))),
        ("input", str(options.input)),
        ("truth", str(options.truth or "not given")),
        ("overlap of windows", f"{options.overlap:g}"),
        ("mirrored along axes", ", ".join(map(str, options.mirror_axes)) or "none"),
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


def _viewer(folder: Path, done: Sequence[ScanRecord], options: Predict) -> Viewer | None:
    """Return a viewer of the scans and masks whose files are still there.

    They are in the order of the table, as many as there is room for.
    """
    budget = ViewerBudget(options.page.viewer_mib)
    shown = [record for record in done if record.ids]
    labels = _labels(shown)
    with progress_bar() as bar:
        task = bar.add_task("volumes for the viewer", total=len(shown), note="")
        for rank, record in enumerate(shown):
            try:
                case = _viewer_case(folder, record, labels)
            except SegpipeError as error:
                log.warning("%s: is not in the viewer: %s", record.name, error)
                case = None
            if case is not None:
                budget.add(float(rank), case)
            bar.advance(task)
    return make_viewer(budget, labels)


def _viewer_case(folder: Path, record: ScanRecord, labels: Sequence[str]) -> ViewerCase | None:
    """Return a scan, its mask, and the truth it was scored against; ids are indices of `labels`.

    Raises:
        SegpipeError: if a file is gone, or cannot be read.
    """
    scan = _scan(record)
    indices = np.zeros(max(record.ids, default=0) + 2, np.uint8)  # of labels, by id on disk
    for number, name in zip(record.ids, record.labels, strict=True):
        indices[number] = labels.index(name) + 1
    image = read(scan.images, partial(load, nan="fill"))
    mask = _read_mask(folder / scan.mask_name, indices)
    truth = None
    if record.truth and record.scores:
        truth = _read_mask(Path(record.truth), indices)
    affine = np.asarray(image.affine, dtype=float)
    voxels = image.as_tensor().float().mean(0).numpy()
    return viewer_case(record.name, voxels, mask, truth, affine)


def _read_mask(path: Path, indices: np.ndarray) -> np.ndarray:
    """Return a label map whose ids are replaced; larger ids count as background."""
    ids = np.clip(read([path]).numpy()[0], 0, len(indices) - 1)
    return indices[ids.astype(int)]


def _failed_table(records: Sequence[ScanRecord]) -> Table:
    """Return the table of the scans that failed, by name."""
    rows = sorted([record.name, record.reason] for record in records)
    caption = f"{count(len(rows), 'scan')} without a mask"
    return Table(caption, [Column("scan"), Column("reason")], rows, Sorted(0))


def _done_table(done: Sequence[ScanRecord], pictures: Mapping[str, Picture], scored: bool) -> Table:
    """Return the table of the scans that are done."""
    labels = _labels(done)
    targets = _targets(done)
    columns = [Column("scan"), Column("picture", sortable=False)]
    if scored:
        columns.append(Column("Dice, mean", 3))
    columns += [Column(f"Dice {name}", 3) for name in targets]
    units = units_of(done)
    columns += [Column(f"{name}, {units.volume}", units.digits) for name in labels]
    columns += [Column(f"{stage}, s", 2) for stage in STAGES]
    columns.append(Column("warnings"))
    rows: list[list[Cell]] = []
    for record in done:
        row: list[Cell] = [Link(record.name, _scan(record).mask_name)]
        row.append(_picture_cell(record, pictures))
        if scored:
            row.append(_mean_dice(record))
        row += _numbers(record, targets, labels)
        row.append("; ".join(record.warnings))
        rows.append(row)
    caption = f"{count(len(done), 'scan')}; the name is a link to the mask"
    return Table(caption, columns, rows, Sorted(2 if scored else 0))


def _picture_cell(record: ScanRecord, pictures: Mapping[str, Picture]) -> Cell:
    """Return the picture of a scan, or a link to it; None where none was drawn."""
    if record.name in pictures:
        return pictures[record.name]
    return Link("picture", record.picture) if record.drawn else None


def _numbers(record: ScanRecord, targets: Sequence[str], labels: Sequence[str]) -> list[Cell]:
    """Return Dice per target, volume per label and seconds per stage; None where there is none."""
    dice = {score.label: score.dice for score in record.scores}
    volumes = dict(zip(record.labels, map(record.units.of_volume, record.volumes_ml), strict=True))
    return [
        *map(dice.get, targets),
        *map(volumes.get, labels),
        *map(record.seconds.get, STAGES),
    ]


def _labels(records: Sequence[ScanRecord]) -> list[str]:
    """Return the names of the labels of all scans, in the order of their first appearance."""
    names: dict[str, None] = {}
    for record in records:
        names |= dict.fromkeys(record.labels)
    return list(names)


def _targets(records: Sequence[ScanRecord]) -> list[str]:
    """Return the names of the targets that were scored, in the order of their first appearance."""
    names: dict[str, None] = {}
    for record in records:
        names |= dict.fromkeys(score.label for score in record.scores)
    return list(names)


def _scan(record: ScanRecord) -> Scan:
    """Return the scan that a record is of."""
    return Scan(record.name, tuple(map(Path, record.images)))


def _mean_dice(record: ScanRecord) -> float:
    """Return the mean Dice of the targets that either mask has; NaN where there is no truth."""
    dice = np.array([score.dice for score in record.scores])
    counted = dice[~np.isnan(dice)]
    return float(counted.mean()) if counted.size else float("nan")
