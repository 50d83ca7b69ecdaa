"""Training cases in model space, prepared once and cached on disk."""

import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.transforms.utils import map_classes_to_indices
from torch import Tensor

from segpipe.bounded_cache import GIB, keep, make_room
from segpipe.data import cache
from segpipe.data.cases import Case
from segpipe.data.loading import load
from segpipe.data.prepare import crop, model_space, prepare_scan, read_labels
from segpipe.device import count_cores
from segpipe.errors import DataError
from segpipe.io.formats import DICOM, format_of
from segpipe.io.volumes import read_grid
from segpipe.plan import Plan
from segpipe.terminal import progress_bar
from segpipe.text import count

log = logging.getLogger("segpipe")
MOST_INDICES = 100_000  # voxels remembered per label: enough to centre patches on
MIB = 2**20


@dataclass(frozen=True)
class PreparedCase:
    """A training case in model space.

    Attributes:
        image: shape `(c, x, y, z)`, normalised, float32.
        label: shape `(1, x, y, z)`, label indices, uint8.
        indices: per label the flat indices of its voxels, of at most 100,000 of them.
    """

    image: Tensor
    label: Tensor
    indices: list[np.ndarray]

    def save(self, entry: Path) -> None:
        """Write the case into the cache.

        Raises:
            DataError: if it cannot be written.
        """
        arrays = {
            "image": self.image.numpy(),
            "label": self.label.numpy(),
            "ends": np.cumsum(list(map(len, self.indices))),
            "indices": np.concatenate(self.indices),
        }
        cache.write_entry(entry, arrays)

    @classmethod
    def load(cls, entry: Path) -> "PreparedCase":
        """Return the case that `save` wrote; voxels are read from disk when they are used.

        Raises:
            DataError: if it does not exist any more.
        """
        arrays = cache.read_entry(entry)
        if arrays is None:
            raise DataError(
                f"{entry}: this prepared case is gone; go on with resume=RUN, which prepares it "
                "again"
            )
        indices = np.split(arrays["indices"], arrays["ends"][:-1])
        return cls(torch.from_numpy(arrays["image"]), torch.from_numpy(arrays["label"]), indices)


def prepare_case(case: Case, plan: Plan) -> PreparedCase:
    """Read a training case and bring it into model space.

    Raises:
        DataError: if a file cannot be used.
    """
    scan = prepare_scan(case.images, plan, load)
    labels = read_labels(case, plan, scan.grid)
    if scan.box is not None:
        labels = crop(labels, scan.box)
    label = model_space(plan).labels_to_model(labels)
    indices = map_classes_to_indices(label, len(plan.labels), max_samples_per_class=MOST_INDICES)
    return PreparedCase(scan.image, label, list(map(np.asarray, indices)))


def prepare_all(
    cases: Sequence[Case], plan: Plan, folder: Path, limit_gib: float | None = None
) -> list[Path]:
    """Prepare the cases that are not yet in the cache, and return the entries of all.

    The cache keeps these until the process ends, or calls this again.

    Args:
        cases: cases with labels.
        plan: the plan of the run.
        folder: the folder of the cache.
        limit_gib: most that the cache may take, in GiB; None: no limit.

    Raises:
        DataError: if a case cannot be used, or the disk has no room for what is to be prepared.
    """
    cache.remove_abandoned(folder)
    with ThreadPoolExecutor(count_cores()) as threads:
        entries = list(threads.map(lambda case: _entry_path(case, plan, folder), cases))
        keep(folder, [entry.name for entry in entries])
        missing: dict[Path, Case] = {}
        whole = list(threads.map(cache.is_whole, entries))
        for entry, case, is_whole in zip(entries, cases, whole, strict=True):
            if not is_whole:
                missing[entry] = case
        if missing:
            needed = _needed_bytes(list(missing.values()), plan)
            _free(folder, limit_gib, needed)
            _check_room(needed, len(missing), len(cases), folder)

        def prepare(entry: Path) -> None:
            prepare_case(missing[entry], plan).save(entry)

        with progress_bar() as bar:
            preparing = bar.add_task("preparing cases", total=len(missing), note="")
            for _ in threads.map(prepare, missing):
                bar.advance(preparing)
    excess = _free(folder, limit_gib)
    if excess:
        log.warning(
            "%s: what is in use exceeds data.cache_gib=%g by %.1f GiB", folder, limit_gib, excess
        )
    return entries


def _free(folder: Path, limit_gib: float | None, coming: int = 0) -> float:
    """Make room in a cache that has a limit, and return by how many GiB it is exceeded still."""
    return make_room(folder, limit_gib, coming) / GIB if limit_gib is not None else 0.0


def _entry_path(case: Case, plan: Plan, folder: Path) -> Path:
    """Return the cache's entry for a case, named after all that the prepared arrays depend on."""
    assert case.label is not None
    foreground = plan.foreground if "ct" in plan.normalise else None
    planes = ()
    if plan.slices != "plan":
        planes = (plan.slice_axis, plan.slices, plan.frame)
    averages = ("averages",) if plan.averages else ()
    changed = [value for value in (plan.axes, plan.rules) if value not in ("ras", "segpipe")]
    # the segments of a DICOM file are known by their names
    names = list(plan.labels) if format_of(case.label) is DICOM else ()
    return cache.entry_path(
        folder,
        case.files,
        "prepared",
        plan.spacing_mm,
        plan.normalise,
        foreground,
        list(plan.labels.values()),
        plan.ignore,
        *planes,
        *averages,
        *changed,
        *names,
    )


def _needed_bytes(cases: Sequence[Case], plan: Plan) -> int:
    """Return about how many bytes of the cache the cases will take."""
    space = model_space(plan)
    voxels = 0.0
    for case in cases:
        voxels += float(np.prod(space.shape(read_grid(case.images[0]))))
    bytes_per_voxel = 4 * len(plan.channels) + 1
    return int(voxels * bytes_per_voxel)


def _check_room(needed: int, missing: int, total: int, folder: Path) -> None:
    """Check that the disk has room for the cases that are still to be prepared.

    Args:
        needed: bytes.
        missing: number of cases that are to be prepared.
        total: number of cases.
        folder: the folder of the cache.
    """
    needed_mib = needed / MIB
    folder.mkdir(parents=True, exist_ok=True)
    free_mib = shutil.disk_usage(folder).free / MIB
    log.info(
        "cache: %d of %s to prepare, %.0f MiB in %s",
        missing,
        count(total, "case"),
        needed_mib,
        folder,
    )
    if needed_mib > free_mib:
        raise DataError(
            f"{folder}: the prepared cases need {needed_mib:.0f} MiB, but only {free_mib:.0f} MiB "
            "are free: make room, name another folder by data.cache, or give a coarser plan.spacing"
        )
