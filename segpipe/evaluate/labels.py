"""Which ids of masks are scored under which names, and label indices in place of ids."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8

from segpipe.config.evaluate import Evaluate
from segpipe.data.cases import read_json
from segpipe.data.layouts.dataset_json import NAME, DatasetJson
from segpipe.errors import DataError
from segpipe.mask_pairs import IGNORED
from segpipe.prediction.record_store import MANIFEST, read_manifest
from segpipe.text import count

log = logging.getLogger("segpipe")
MOST_ID = 10_000_000  # of a label map: a table of all ids is made
MOST_LABELS = IGNORED - 1
NAMED = 5  # ids that a message names at most
Ids = Mapping[str, Sequence[int]]  # name of a target -> ids on disk


@dataclass(frozen=True)
class Scheme:
    """What is scored.

    Attributes:
        labels: name of each target -> its ids; None: every id that occurs, under its number.
        ignore: id of voxels of the truth that are not scored; None where there is none.
    """

    labels: Ids | None
    ignore: int | None


@dataclass(frozen=True)
class Indexed:
    """A mask and a truth with label indices in place of ids.

    Attributes:
        prediction: indices, 0 for the background.
        truth: indices, 0 for the background; `IGNORED` where the truth is left open.
        targets: name of each target -> its indices.
        names: the names of the indices 1, 2, ..., for pictures.
        warnings: ids that are not scored.
    """

    prediction: UInt8[np.ndarray, "x y z"]
    truth: UInt8[np.ndarray, "x y z"]
    targets: dict[str, list[int]]
    names: list[str]
    warnings: list[str]


def find_scheme(options: Evaluate) -> Scheme:
    """Return what is scored: as the user says, or the files beside the truths and the masks."""
    if options.labels is not None:
        return Scheme(options.labels, options.ignore)
    for given in (options.truth, options.prediction):
        folder = Path(given or "")
        for file in (folder / NAME, folder.parent / NAME):
            scheme = _declared(file, options.ignore)
            if scheme is not None:
                return scheme
        manifest = folder / MANIFEST
        if given and manifest.is_file():
            labels = _recorded(manifest)
            if labels:
                return Scheme(labels, options.ignore)
    return Scheme(None, options.ignore)


def _declared(file: Path, ignore: int | None) -> Scheme | None:
    """Return the labels of a `dataset.json`; None where there are none."""
    if not file.is_file():
        return None
    try:
        content = read_json(file)
        if not isinstance(content, dict) or "labels" not in content:
            return None
        labels = _labels_of(DatasetJson(file, content))
    except DataError as error:
        log.warning("%s; its labels are not used", error)
        return None
    left_open = labels.pop("ignore", None)
    if left_open is not None and ignore is None:
        ignore = left_open[0]
    log.info("labels of %s: %s", file, ", ".join(labels))
    return Scheme(labels, ignore) if labels else None


def _labels_of(declared: DatasetJson) -> dict[str, list[int]]:
    """Return the ids of each label but the background, in either form that a file may have."""
    given = declared.content["labels"]
    labels: dict[str, list[int]] = {}
    if isinstance(given, dict) and all(str(key).isdecimal() for key in given):
        for number, name in declared.names_by_number("labels", '{"1": "liver"}').items():
            labels[name] = [number]
    else:
        labels = declared.unions_by_name("labels", '{"liver": 1}')
    return {name: ids for name, ids in labels.items() if ids != [0]}


def _recorded(manifest: Path) -> dict[str, list[int]]:
    """Return the labels that a folder of predictions says its masks have."""
    labels: dict[str, list[int]] = {}
    for record in read_manifest(manifest).values():
        for name, number in zip(record.labels, record.ids, strict=False):
            labels[name] = [number]
    return labels


def to_indices(
    prediction: Num[np.ndarray, "x y z"], truth: Num[np.ndarray, "x y z"], scheme: Scheme
) -> Indexed:
    """Return a mask and its truth with label indices in place of ids.

    Ids that are not scored become background, and a warning names them.

    Raises:
        DataError: if either is no label map, or has too many labels.
    """
    predicted = _ids_in(prediction, "the mask")
    true = [number for number in _ids_in(truth, "the truth") if number != scheme.ignore]
    labels = scheme.labels
    if labels is None:
        labels = {str(number): [number] for number in sorted({*predicted, *true})}
    known: list[int] = sorted(set().union(*labels.values()))
    if len(known) > MOST_LABELS:
        raise DataError(
            f"{len(known)} ids, but at most {MOST_LABELS} can be scored: are these masks?"
        )
    index = {number: position for position, number in enumerate(known, start=1)}
    warnings = _unscored("the mask", prediction, predicted, index)
    warnings += _unscored("the truth", truth, true, index)
    special = {} if scheme.ignore is None else {scheme.ignore: IGNORED}
    targets: dict[str, list[int]] = {}
    for name, ids in labels.items():
        targets[name] = [index[number] for number in ids]
    return Indexed(
        _replaced(prediction, index),
        _replaced(truth, index | special),
        targets,
        _names(known, labels),
        warnings,
    )


def _ids_in(ids: np.ndarray, what: str) -> list[int]:
    """Return the ids of a label map but 0, sorted.

    Raises:
        DataError: if they are not whole numbers from 0, or too large.
    """
    if ids.dtype.kind == "f":
        raise DataError(f"{what} holds numbers that are not whole; is it a map of probabilities?")
    lowest = int(ids.min())
    highest = int(ids.max())
    if lowest < 0 or highest > MOST_ID:
        raise DataError(
            f"{what} holds ids from {lowest} to {highest}; they must lie in 0..{MOST_ID}"
        )
    seen = np.zeros(highest + 1, dtype=bool)
    for plane in np.moveaxis(ids, -1, 0):  # one by one: an index takes 8 bytes a voxel
        seen[plane] = True
    return [number for number in np.flatnonzero(seen).tolist() if number]


def _replaced(ids: np.ndarray, index: Mapping[int, int]) -> UInt8[np.ndarray, "x y z"]:
    """Return the index of each voxel's id; 0 for others."""
    table = np.zeros(max(int(ids.max()), *index, 0) + 1, dtype=np.uint8)
    for number, position in index.items():
        table[number] = position
    replaced = np.empty(ids.shape, dtype=np.uint8, order="F")
    for plane in range(ids.shape[-1]):
        replaced[..., plane] = table[ids[..., plane]]
    return replaced


def _unscored(
    what: str, ids: np.ndarray, present: Sequence[int], index: Mapping[int, int]
) -> list[str]:
    """Return a warning of ids that are not scored; none where all are."""
    unknown = [number for number in present if number not in index]
    if not unknown:
        return []
    named: list[str] = []
    for number in unknown[:NAMED]:
        named.append(f"{number} ({count(int(np.count_nonzero(ids == number)), 'voxel')})")
    more = " ..." if unknown[NAMED:] else ""
    return [f"{what} holds {', '.join(named)}{more}, which labels does not name: not scored"]


def _names(known: Sequence[int], labels: Ids) -> list[str]:
    """Return a name for each id: that of the target which it is alone, else its number."""
    alone = {ids[0]: name for name, ids in labels.items() if len(ids) == 1}
    return [alone.get(number, f"id {number}") for number in known]
