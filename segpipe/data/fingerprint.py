"""The training cases, looked at once: grids, intensities and label ids, and whatever makes one unusable."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from segpipe.data.cases import Case
from segpipe.data.prepare import inside_ids
from segpipe.errors import DataError
from segpipe.geometry import Grid, check_same_grid
from segpipe.plan import Fingerprint
from segpipe.volumes import read

SAMPLE = 10_000  # labelled voxels per case that stand for its intensities
MOST_LABELS = 255  # more ids than this are intensities, not labels


@dataclass(frozen=True)
class _Look:
    grid: Grid
    ids: np.ndarray
    foreground: np.ndarray  # (channels, voxels)


def look(
    train: Sequence[Case], val: Sequence[Case], labels: dict[str, int] | None, done: Callable[[], None]
) -> tuple[Fingerprint, dict[str, int]]:
    """Reads every case once, in parallel; the fingerprint is of the training cases alone.

    Args:
        train: cases with labels.
        val: likewise; they are only checked, and their label ids noted.
        labels: the declared label ids; None = those that are found, named after their numbers.
        done: called after each case.

    Raises:
        DataError: for the first case that cannot be used.
    """

    cases = [*train, *val]

    def one(case: Case) -> _Look:
        seen = _look(case, labels)
        done()
        return seen

    with ThreadPoolExecutor() as threads:
        looks = list(threads.map(one, cases))
    channels = {len(seen.foreground) for seen in looks}
    if len(channels) > 1:
        odd = next(
            case for case, seen in zip(cases, looks, strict=True) if len(seen.foreground) != len(looks[0].foreground)
        )
        raise DataError(
            f"{odd.images[0]}: has another number of channels than {cases[0].images[0]}; found {sorted(channels)}"
        )
    ids = sorted({0} | {int(value) for seen in looks for value in seen.ids})
    if len(ids) < 2:
        raise DataError(f"{cases[0].label}: no voxel of any of the {len(cases)} label maps is labelled; all are 0")
    found = labels or {"background": 0} | {f"label {value}": value for value in ids if value}
    training = looks[: len(train)]
    voxels = np.concatenate([seen.foreground for seen in training], axis=1)
    return (
        Fingerprint(
            spacings_mm=np.array([seen.grid.ras_spacing_mm for seen in training]),
            shapes=np.array([seen.grid.ras_shape for seen in training]),
            channels=channels.pop(),
            foreground=[_statistics(channel) for channel in voxels],
        ),
        found,
    )


def _look(case: Case, labels: dict[str, int] | None) -> _Look:
    assert case.label is not None
    image, label = read(case.images), read([case.label])
    check_same_grid(case.images[0], Grid.of(image), case.label, Grid.of(label))
    if len(label) != 1:
        raise DataError(f"{case.label}: has {len(label)} channels; a label map has one")
    ids = np.unique(label.numpy())
    if labels is not None:
        inside_ids(label.numpy(), labels, case.label)
    elif len(ids) > MOST_LABELS + 1 or (ids != np.round(ids)).any() or ids.min() < 0:
        raise DataError(
            f"{case.label}: holds {len(ids)} values from {ids.min():g} to {ids.max():g}, which are not label ids "
            f"(whole numbers from 0, at most {MOST_LABELS} of them); is it an image?"
        )
    voxels = image.numpy()[:, label.numpy()[0] > 0]
    step = max(1, voxels.shape[1] // SAMPLE)
    return _Look(Grid.of(image), ids, voxels[:, ::step].astype(np.float32))


def _statistics(voxels: np.ndarray) -> tuple[float, float, float, float]:
    low, high = np.percentile(voxels, [0.5, 99.5])
    return float(low), float(high), float(voxels.mean()), float(voxels.std())
