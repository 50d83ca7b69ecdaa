"""Training cases in model space, prepared once and kept on disk, and the patches that are cut from them."""

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms.utils import map_classes_to_indices
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from segpipe.config.train import Augment, Train
from segpipe.data import cache
from segpipe.data.augment import Augmentation, make_augmentation, make_sampler
from segpipe.data.cases import Case
from segpipe.data.loading import load
from segpipe.data.prepare import model_space, prepare_scan, read_labels
from segpipe.errors import DataError
from segpipe.io.volumes import read_grid
from segpipe.plan import Plan
from segpipe.terminal import progress_bar

log = logging.getLogger("segpipe")
LARGEST_INDEX = 100_000  # voxels remembered per label: enough to centre patches on, bounded in size
HELD_MIB = 2048  # prepared cases up to this size together stay open; else each is opened for its patch and closed
MIB = 2**20


@dataclass(frozen=True)
class PreparedCase:
    """A training case in model space.

    Attributes:
        image: shape `(c, x, y, z)`, normalised, float32.
        label: shape `(1, x, y, z)`, ids inside, uint8.
        indices: per label the flat places of (at most 100,000 of) its voxels.
    """

    image: Tensor
    label: Tensor
    indices: list[np.ndarray]

    def save(self, place: Path) -> None:
        """Keeps it in the cache."""
        ends = np.cumsum([len(places) for places in self.indices])
        arrays = {"image": self.image.numpy(), "label": self.label.numpy(), "ends": ends}
        cache.keep(place, arrays | {"indices": np.concatenate(self.indices)})

    @classmethod
    def load(cls, place: Path) -> "PreparedCase":
        """Undoes `save`; what is not looked at is not read.

        Raises:
            DataError: if it is not there any more.
        """
        arrays = cache.kept(place)
        if arrays is None:
            raise DataError(
                f"{place}: this prepared case is gone; go on with resume=RUN, which prepares it again"
            )
        indices = np.split(arrays["indices"], arrays["ends"][:-1])
        return cls(torch.from_numpy(arrays["image"]), torch.from_numpy(arrays["label"]), indices)


def prepare_case(case: Case, plan: Plan) -> PreparedCase:
    """Reads a training case and brings it before the network.

    Raises:
        DataError: if a file cannot be used.
    """
    scan = prepare_scan(case.images, plan, load)
    label = model_space(plan).labels_to_model(read_labels(case, plan, scan.grid))
    indices = map_classes_to_indices(label, len(plan.labels), max_samples_per_class=LARGEST_INDEX)
    return PreparedCase(scan.image, label, [np.asarray(places) for places in indices])


def prepare_all(cases: Sequence[Case], plan: Plan, folder: Path) -> list[Path]:
    """Each case's place in the cache `folder`, prepared where it was not yet.

    Raises:
        DataError: if a case cannot be used, or the disk has no room for what is to be prepared.
    """
    cache.tidy(folder)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        places = list(threads.map(partial(_place, plan=plan, folder=folder), cases))
        missing = [
            (case, place)
            for case, place in zip(cases, places, strict=True)
            if cache.kept(place) is None
        ]
        if missing:
            _check_room([case for case, _ in missing], len(cases), plan, folder)
        with progress_bar() as bar:
            preparing = bar.add_task("preparing cases", total=len(missing), note="")
            for _ in threads.map(lambda new: prepare_case(new[0], plan).save(new[1]), missing):
                bar.advance(preparing)
    return places


def _place(case: Case, plan: Plan, folder: Path) -> Path:
    assert case.label is not None
    foreground = plan.foreground if "ct" in plan.normalise else None
    settings = [
        "prepared",
        plan.spacing_mm,
        plan.normalise,
        foreground,
        list(plan.labels.values()),
        plan.ignore,
    ]
    return cache.entry(folder, [*case.images, case.label], *settings)


def _check_room(cases: Sequence[Case], of: int, plan: Plan, folder: Path) -> None:
    voxels = sum(
        float(np.prod(model_space(plan).shape(read_grid(case.images[0])))) for case in cases
    )
    needed = voxels * (4 * len(plan.channels) + 1) / MIB
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / MIB
    log.info("cache: %d of %d cases to prepare, %.0f MiB in %s", len(cases), of, needed, folder)
    if needed > free:
        raise DataError(
            f"{folder}: the prepared cases need {needed:.0f} MiB, but only {free:.0f} MiB are free: make room, name "
            "another folder by data.cache, or give a coarser plan.spacing"
        )


class Patches(Dataset[dict[str, Any]]):
    """Item `i` is the `i`-th patch of the run: the same whatever the workers, and after a resume.

    Its case, place and augmentation are drawn from the seed and `i` alone. Cases come in shuffled rounds.

    Args:
        cases: that train.
        plan: of the run.
        options: of the run.
        change: whether to augment the patches; else `change_batch` does it where the network is.
    """

    def __init__(
        self, cases: Sequence[Case], plan: Plan, options: Train, change: bool = True
    ) -> None:
        self.cases, self.seed = cases, options.seed
        self.cut = make_sampler(plan, options.plan.foreground, options.augment)
        self.change = make_augmentation(plan, options.augment) if change else None
        self.places = prepare_all(cases, plan, options.data.cache)
        self.round: tuple[int, list[list[int]]] = -1, []
        self.held: dict[Path, PreparedCase] | None = (
            {} if _size_mib(self.places) <= HELD_MIB else None
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`image` `(c, *patch)` float32, `label` `(1, *patch)` uint8, the `case`'s name and the patch's `seed`."""
        turn, number = divmod(index, len(self.cases))
        place, where, how = self._drawn(turn)[number]
        case = self._open(self.places[place])
        patch = self.cut(case.image, case.label, case.indices, where)
        if self.change is not None:
            patch = self.change(patch, how)
        return {**patch, "case": self.cases[place].name, "seed": how}

    def _drawn(self, turn: int) -> list[list[int]]:
        """Of each patch of a round its case, and the seeds of its place and augmentation; kept until the next round."""
        if self.round[0] != turn:
            rng, cases = np.random.default_rng([self.seed, turn]), len(self.cases)
            columns = rng.permutation(cases), *rng.integers(2**31, size=(2, cases))
            self.round = turn, np.column_stack(columns).tolist()
        return self.round[1]

    def _open(self, place: Path) -> PreparedCase:
        if self.held is None:
            return PreparedCase.load(place)
        if place not in self.held:
            self.held[place] = PreparedCase.load(place)
        return self.held[place]

    def __getstate__(self) -> dict[str, Any]:
        """Leaves open files behind: a worker that is started afresh opens its own."""
        return self.__dict__ | {"held": self.held and {}}


def fixed_patches(
    cases: Sequence[Case], plan: Plan, foreground: float, augment: Augment, count: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Always the same patches of these cases, in turns: `(count, c, *patch)` and `(count, 1, *patch)`, not augmented.

    Raises:
        DataError: if a case cannot be used.
    """
    cut = make_sampler(plan, foreground, augment.model_copy(update={"affine": 0.0, "elastic": 0.0}))
    prepared = [prepare_case(case, plan) for case in cases[:count]]
    found = []
    for number in range(count):
        case = prepared[number % len(prepared)]
        where = int(np.random.default_rng([seed, number]).integers(2**31))
        found.append(cut(case.image, case.label, case.indices, where))
    image, label = (torch.stack([patch[name] for patch in found]) for name in ("image", "label"))
    return image, label.to(torch.uint8)


def _size_mib(places: Sequence[Path]) -> float:
    return sum(file.stat().st_size for place in places for file in place.iterdir()) / MIB


def augment_batch(change: Augmentation, batch: dict[str, Any]) -> dict[str, Any]:
    """Augments the patches of a batch that was only cut, each by its own seed."""
    patches = [
        change({"image": image, "label": label}, int(seed))
        for image, label, seed in zip(batch["image"], batch["label"], batch["seed"], strict=True)
    ]
    return batch | {
        name: torch.stack([patch[name] for patch in patches]) for name in ("image", "label")
    }


class ContinuingSampler(Sampler[int]):
    """The numbers of an epoch's patches: each epoch goes on where the last one ended."""

    def __init__(self, first: int, size: int) -> None:
        self.first, self.size = first, size

    def __iter__(self) -> Iterator[int]:
        """The patch numbers of the next epoch."""
        first, self.first = self.first, self.first + self.size
        return iter(range(first, first + self.size))

    def __len__(self) -> int:
        """Patches in an epoch."""
        return self.size
