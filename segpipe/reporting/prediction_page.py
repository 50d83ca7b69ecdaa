"""`index.html` of a folder of masks: every scan that was ever segmented into it, the failed ones first."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segpipe import __version__
from segpipe.config.predict import Predict
from segpipe.errors import SegpipeError
from segpipe.io.volumes import read
from segpipe.plan import Plan
from segpipe.prediction.outputs import STAGES
from segpipe.prediction.predictor import Prediction
from segpipe.prediction.records import ScanRecord
from segpipe.prediction.scans import Scan, find_truth
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

log = logging.getLogger("segpipe")
WIDTH = 800  # pixels of a picture inside the page
PICTURES_MIB = 24.0  # beyond this, pictures are linked: a page of more is slow to open
FAR = 3.0  # times the spacing that the network was trained with, from which a scan is worth a look
AXES = ("left-right", "back-front", "foot-head")


@dataclass(frozen=True)
class Index(Page):
    """What `index.html` shows.

    Attributes:
        facts: name and text.
        failed: scan and reason; None where none failed.
        scans: those that are done; None where none is.
        pictures: what is inside the page and what beside it.
        viewer: of volumes, where it is asked for.
        files: beside the page.
    """

    facts: Sequence[tuple[str, str]]
    failed: Table | None
    scans: Table | None
    pictures: str
    viewer: Viewer | None
    files: Sequence[Link]


def warnings_for(prediction: Prediction, outcome: ScanRecord, plan: Plan) -> list[str]:
    """What a person should know of a mask that is done: labels not found, a spacing far from the training's."""
    missing = [
        name for name, count in zip(outcome.labels, outcome.voxels, strict=True) if not count
    ]
    found = [f"finds no {', no '.join(missing)}"] if missing else []
    for name, mm, goal in zip(AXES, prediction.grid.ras_spacing_mm, plan.spacing_mm, strict=True):
        if goal is not None and not 1 / FAR <= mm / goal <= FAR:
            found.append(f"voxels of {mm:.3g} mm {name}, but the network sees {goal:.3g} mm")
    return found


def write_index(
    folder: Path, known: Mapping[str, ScanRecord], asked: int, options: Predict
) -> None:
    """Writes `index.html`, with the results of earlier calls into this folder too.

    Args:
        folder: of the masks.
        known: all that is settled there, by name.
        asked: scans of this call.
        options: of this call.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    failed = [one for one in known.values() if one.reason]
    done = sorted(
        (one for one in known.values() if not one.reason), key=lambda one: (_dice(one), one.name)
    )
    pictures = _pictures(folder, done)
    scored = any(one.scores for one in done)
    page = Index(
        title=f"Predictions in {folder.resolve().name}",
        lead=f"{len(done)} {_scans(len(done))} done, {len(failed)} failed; the last call asked for {asked}.",
        facts=_facts(options),
        failed=_failed(failed) if failed else None,
        scans=_done(done, pictures, scored) if done else None,
        pictures=_note(pictures, done),
        viewer=_viewer(folder, [one for one in done if one.ids], options)
        if options.page.viewer
        else None,
        files=[Link(name, name) for name in _beside(folder, scored)],
    )
    write_page(folder / "index.html", "index.html", page)


def _facts(options: Predict) -> list[tuple[str, str]]:
    assert options.checkpoint is not None
    cleaned = [f"keep_largest {', '.join(options.keep_largest)}"] if options.keep_largest else []
    cleaned += [f"min_volume_ml {options.min_volume_ml}"] if options.min_volume_ml else []
    cleaned += [f"labels {', '.join(options.labels)}"] if options.labels else []
    return [
        ("checkpoint", ", ".join(str(path) for path in options.checkpoint)),
        ("input", str(options.input)),
        ("truth", str(options.truth or "not given")),
        ("overlap of windows", f"{options.overlap:g}"),
        ("mirrored along axes", ", ".join(map(str, options.mirror_axes)) or "none"),
        ("masks cleaned", "; ".join(cleaned) or "no"),
        ("segpipe", __version__),
    ]


def _beside(folder: Path, scored: bool) -> list[str]:
    files = ["predictions.csv", "manifest.json", *(["scores.csv"] if scored else [])]
    return [name for name in files if (folder / name).is_file()]


def _pictures(folder: Path, done: Sequence[ScanRecord]) -> dict[str, Picture]:
    """The pictures that the page holds, by the scan's name."""
    files = {one.name: _overlay(folder, one) for one in done}
    return embed_all(files, "mask over the scan in three slices", WIDTH, PICTURES_MIB)


def _viewer(folder: Path, done: Sequence[ScanRecord], options: Predict) -> Viewer | None:
    """The scans and masks whose files are still there, in the order of the table, as many as there is room for."""
    shelf, labels = (
        ViewerBudget(options.page.viewer_mib),
        list(dict.fromkeys(name for one in done for name in one.labels)),
    )
    with progress_bar() as bar:
        task = bar.add_task("volumes for the viewer", total=len(done), note="")
        for rank, one in enumerate(done):
            try:
                case = _turnable(folder, one, labels, options.truth)
            except SegpipeError as error:
                log.warning("%s: is not in the viewer: %s", one.name, error)
                case = None
            if case is not None:
                shelf.add(float(rank), case)
            bar.advance(task)
    return make_viewer(shelf, labels)


def _turnable(
    folder: Path, one: ScanRecord, labels: Sequence[str], truths: Path | None
) -> ViewerCase | None:
    """A scan, its mask, and the truth it was scored against, whose ids become the places of the page's labels.

    Raises:
        SegpipeError: if a file is gone, or cannot be read.
    """
    scan, paths = Scan(one.name, tuple(map(Path, one.images))), [folder / _mask(one)]
    if truths is not None and one.scores:
        paths.append(find_truth(scan, truths))
    places = {
        number: labels.index(name) + 1 for number, name in zip(one.ids, one.labels, strict=True)
    }
    known = np.zeros(max(places, default=0) + 2, np.uint8)
    known[list(places)] = list(places.values())
    image = read(scan.images)
    masks = [
        known[np.clip(read([path]).numpy()[0], 0, len(known) - 1).astype(int)] for path in paths
    ]
    affine = np.asarray(image.affine, dtype=float)
    voxels = image.as_tensor().float().mean(0).numpy()
    return viewer_case(one.name, voxels, masks[0], masks[1] if masks[1:] else None, affine)


def _overlay(folder: Path, one: ScanRecord) -> Path:
    return folder / "overlays" / f"{one.name}.png"


def _note(pictures: Mapping[str, Picture], done: Sequence[ScanRecord]) -> str:
    drawn = sum(one.drawn for one in done)
    if not drawn:
        return "No pictures were drawn (overlays=false)."
    kib = sum(len(picture.source) for picture in pictures.values()) / 1024
    inside = f"Pictures inside this page: {len(pictures)} of {drawn}, {kib / max(1, len(pictures)):.0f} KiB a scan"
    return f"{inside}; beyond {PICTURES_MIB:g} MiB they are linked from overlays/. In full size: overlays/."


def _failed(outcomes: Sequence[ScanRecord]) -> Table:
    rows = [[one.name, one.reason] for one in sorted(outcomes, key=lambda one: one.name)]
    return Table(
        f"{len(rows)} {_scans(len(rows))} without a mask",
        [Column("scan"), Column("reason")],
        rows,
        Sorted(0),
    )


def _done(done: Sequence[ScanRecord], pictures: Mapping[str, Picture], scored: bool) -> Table:
    labels = list(dict.fromkeys(name for one in done for name in one.labels))
    targets = list(dict.fromkeys(score.label for one in done for score in one.scores))
    columns = [
        *(Column("scan"), Column("picture", sortable=False)),
        *([Column("Dice, mean", 3)] if scored else []),
        *(Column(f"Dice {name}", 3) for name in targets),
        *(Column(f"{name}, mL", 2) for name in labels),
        *(Column(f"{stage}, s", 2) for stage in STAGES),
        Column("warnings"),
    ]
    rows: list[list[Cell]] = []
    for one in done:
        dice = {score.label: score.dice for score in one.scores}
        volumes = dict(zip(one.labels, one.volumes_ml, strict=True))
        picture = pictures.get(one.name) or (
            Link("picture", f"overlays/{one.name}.png") if one.drawn else None
        )
        mean: list[Cell] = [_dice(one)] if scored else []
        numbers = [
            *map(dice.get, targets),
            *map(volumes.get, labels),
            *map(one.seconds.get, STAGES),
        ]
        rows.append([Link(one.name, _mask(one)), picture, *mean, *numbers, "; ".join(one.warnings)])
    return Table(
        f"{len(done)} {_scans(len(done))}; the name is a link to the mask",
        columns,
        rows,
        Sorted(2 if scored else 0),
    )


def _scans(number: int) -> str:
    return "scan" if number == 1 else "scans"


def _mask(one: ScanRecord) -> str:
    return Scan(one.name, tuple(map(Path, one.images))).mask_name


def _dice(one: ScanRecord) -> float:
    """The mean over what either mask has; NaN where there is no truth."""
    known = [score.dice for score in one.scores if not np.isnan(score.dice)]
    return float(np.mean(known)) if known else float("nan")
