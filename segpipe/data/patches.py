"""Training patches: cut from prepared cases, each decided by the seed and its number alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from segpipe.config.train import Augment, Train
from segpipe.data.augment import UNCHANGED, Augmentation, make_augmentation, make_sampler
from segpipe.data.cases import Case
from segpipe.data.patch_sampler import PatchSampler
from segpipe.data.prepared_case import MIB, PreparedCase, prepare_all, prepare_case
from segpipe.plan import Plan

HELD_MIB = 2048  # prepared cases up to this size together stay open; else each is opened per patch
# to learn how much of a label a patch shows
TRIED_CASES = 16
TRIED_PATCHES = 8  # of each case


class Patches(Dataset[dict[str, Any]]):
    """The patches of a run: item `i` is the same whatever the workers, and after a resume.

    The case, position and augmentation of a patch are drawn from the seed and `i` alone. The cases
    come in rounds, each shuffled anew.

    Args:
        cases: the cases that train.
        plan: the plan of the run.
        options: the options of the run.
        augmented: whether to augment the patches; else `augment_batch` does so on the network's
            device.
        entries: the entries of the cases in the cache, where another process has prepared them;
            those that are not there, as on another machine, are prepared here.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        plan: Plan,
        options: Train,
        augmented: bool = True,
        entries: Sequence[Path] = (),
    ) -> None:
        self.cases = cases
        self.seed = options.seed
        self.sampler = make_sampler(plan, options.plan.foreground, options.augment)
        self.augmentation = make_augmentation(plan, options.augment) if augmented else None
        self.entries = list(entries)
        if not entries or not all(map(Path.is_dir, entries)):
            self.entries = prepare_all(cases, plan, options.data.cache, options.data.cache_gib)
        self.round: tuple[int, list[list[int]]] = (-1, [])
        self.held: dict[Path, PreparedCase] | None = None
        if _size_mib(self.entries) <= HELD_MIB:
            self.held = {}
        self.warmup = 0.0  # rounds
        if options.augment.warmup:
            self.warmup = options.augment.warmup / self._shown_share(plan, options)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a patch.

        Returns:
            `image`, shape `(c, *patch)`, float32; `label`, shape `(1, *patch)`, uint8; the name of
            its `case`; the `seed` of its augmentation.
        """
        round_number, turn = divmod(index, len(self.cases))
        number, position_seed, augmentation_seed = self._draw_round(round_number)[turn]
        case = self._open(self.entries[number])
        patch = self.sampler(case.image, case.label, case.indices, position_seed)
        if self.augmentation is not None:
            patch = self.augmentation(patch, augmentation_seed)
        return {**patch, "case": self.cases[number].name, "seed": augmentation_seed}

    def _draw_round(self, round_number: int) -> list[list[int]]:
        """Draw the case, position seed and augmentation seed of each patch of a round.

        Some patches are left as they are until each label has been shown `augment.warmup` times.
        The last round drawn is kept.
        """
        if self.round[0] != round_number:
            rng = np.random.default_rng([self.seed, round_number])
            order = rng.permutation(len(self.cases))
            seeds = rng.integers(2**31, size=(2, len(self.cases)))
            if round_number < self.warmup:
                augmented_share = (round_number + 1) / (self.warmup + 1)
                is_left = rng.random(len(self.cases)) >= augmented_share
                seeds[1, is_left] = UNCHANGED
            self.round = (round_number, np.column_stack([order, *seeds]).tolist())
        return self.round[1]

    def _shown_share(self, plan: Plan, options: Train) -> float:
        """Return the share of a label's voxels that a patch shows, mean of some patches.

        It is no less than the share of a case that a patch holds.
        """
        sampler = _unmoved_sampler(plan, options.plan.foreground, options.augment)
        shown: list[float] = []
        held = []
        for entry in self.entries[:: -(-len(self.entries) // TRIED_CASES)]:
            case = self._open(entry)
            shape = case.label.shape[1:]
            held.append(np.prod(np.minimum(plan.patch, shape) / np.array(shape)))
            for seed in range(TRIED_PATCHES):
                shown += sampler.shown(tuple(shape), case.indices, seed)
        return float(max(np.mean(shown or 0), np.mean(held)))

    def _open(self, entry: Path) -> PreparedCase:
        if self.held is None:
            return PreparedCase.load(entry)
        if entry not in self.held:
            self.held[entry] = PreparedCase.load(entry)
        return self.held[entry]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without open files, since a worker process opens its own."""
        held = None if self.held is None else {}
        return self.__dict__ | {"held": held}


def fixed_patches(
    cases: Sequence[Case], plan: Plan, foreground: float, augment: Augment, count: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Cut the same patches at every call, from the cases in turn, without augmentation.

    Args:
        cases: cases with labels.
        plan: the plan of the run.
        foreground: share of patches that are centred on a labelled voxel.
        augment: the options of augmentation, none of which is used.
        count: number of patches.
        seed: the seed of the positions.

    Returns:
        Images `(count, c, *patch)` and labels `(count, 1, *patch)`, uint8.

    Raises:
        DataError: if a case cannot be used.
    """
    sampler = _unmoved_sampler(plan, foreground, augment)
    prepared = [prepare_case(case, plan) for case in cases[:count]]
    images = []
    labels = []
    for number in range(count):
        case = prepared[number % len(prepared)]
        position_seed = int(np.random.default_rng([seed, number]).integers(2**31))
        patch = sampler(case.image, case.label, case.indices, position_seed)
        images.append(patch["image"])
        labels.append(patch["label"])
    return torch.stack(images), torch.stack(labels).to(torch.uint8)


def _unmoved_sampler(plan: Plan, foreground: float, augment: Augment) -> PatchSampler:
    """Return the sampler of patches as large as the plan says, which nothing turns."""
    unmoved = augment.model_copy(update={"affine": 0.0, "elastic": 0.0})
    return make_sampler(plan, foreground, unmoved)


def augment_batch(augmentation: Augmentation, batch: dict[str, Any]) -> dict[str, Any]:
    """Augment the patches of a batch on their device, each by its own seed.

    Args:
        augmentation: the augmentation of the run.
        batch: `image`, shape `(b, c, x, y, z)`, `label`, shape `(b, 1, x, y, z)`, and `seed`, shape
            `(b)`, which lies on the host.
    """
    images, labels = augmentation.batch(batch["image"], batch["label"], batch["seed"].tolist())
    return batch | {"image": images, "label": labels}


def _size_mib(entries: Sequence[Path]) -> float:
    size = 0
    for entry in entries:
        size += sum(file.stat().st_size for file in entry.iterdir())
    return size / MIB


class ContinuingSampler(Sampler[int]):
    """The patch numbers of an epoch; each epoch continues where the last one ended.

    The first epoch may be the rest of one, in the middle of which a training was stopped. Of every
    batch a device takes as many patches as any other, the first device the first ones.

    Args:
        first: the number of the next patch.
        size: patches in an epoch, over all devices.
        device: number of the device, from 0.
        devices: number of devices.
        batch: patches in a batch, over all devices; only needed for several.
    """

    def __init__(
        self, first: int, size: int, device: int = 0, devices: int = 1, batch: int = 1
    ) -> None:
        self.first = first
        self.size = size
        self.device = device
        self.devices = devices
        self.batch = batch

    def __iter__(self) -> Iterator[int]:
        """Return the patch numbers of the next epoch."""
        end = self.first + self.size - self.first % self.size
        numbers = range(self.first, end)
        self.first = end
        if self.devices == 1:
            return iter(numbers)
        return (number for number in numbers if self._device_of(number) == self.device)

    def _device_of(self, number: int) -> int:
        """Return the device that takes a patch."""
        return number % self.batch * self.devices // self.batch

    def __len__(self) -> int:
        """Return the number of patches of this device in a whole epoch."""
        return self.size // self.devices
