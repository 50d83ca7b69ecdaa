"""The cases of a run: found, split, looked at, prepared and served as patches."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_obj import set_track_meta
from monai.transforms.utils import map_classes_to_indices
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from segpipe.config.train import Train
from segpipe.data.augment import patches
from segpipe.data.cases import Case
from segpipe.data.prepare import model_space, prepare_scan, read_labels
from segpipe.plan import Plan

LARGEST_INDEX = 100_000  # voxels remembered per label: enough to centre patches on, bounded in memory
GIB = 2**30


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
    indices: list[NdarrayOrTensor]


def prepare_case(case: Case, plan: Plan) -> PreparedCase:
    """Reads a training case and brings it before the network.

    Raises:
        DataError: if a file cannot be used.
    """
    scan = prepare_scan(case.images, plan)
    label = model_space(plan).enter_labels(read_labels(case, plan, scan.grid))
    indices = map_classes_to_indices(label, len(plan.labels), max_samples_per_class=LARGEST_INDEX)
    return PreparedCase(scan.image, label, list(indices))


class Patches(Dataset[dict[str, Any]]):
    """Item `i` is the `i`-th patch of the run: the same whatever the workers, and after a resume.

    Its case, place and augmentation are drawn from the seed and `i` alone. Cases come in shuffled rounds.
    """

    def __init__(self, cases: Sequence[Case], plan: Plan, options: Train) -> None:
        self.cases, self.plan, self.seed = cases, plan, options.seed
        self.transform = patches(plan, options.plan.foreground, options.augment)
        with ThreadPoolExecutor() as threads:
            self.kept = self._keep(threads.map(partial(prepare_case, plan=plan), cases), options.data.cache_gib * GIB)

    def _keep(self, prepared: Iterator[PreparedCase], room: float) -> dict[int, PreparedCase]:
        kept: dict[int, PreparedCase] = {}
        for place, case in enumerate(prepared):
            room -= case.image.nbytes + case.label.nbytes
            if room < 0:
                break
            kept[place] = case
        return kept

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`image` `(c, *patch)` float32, `label` `(1, *patch)` uint8, and the name of the `case`."""
        turn, place = divmod(index, len(self.cases))
        place = int(np.random.default_rng([self.seed, turn]).permutation(len(self.cases))[place])
        case = self.kept.get(place) or prepare_case(self.cases[place], self.plan)
        self.transform.set_random_state(seed=int(np.random.default_rng([self.seed, index]).integers(2**31)))
        set_track_meta(False)  # a patch needs no affine, and keeping one costs as much as the augmentation
        try:
            given: dict[str, Any] = {"image": case.image, "label": case.label, "indices": case.indices}
            patch: Any = self.transform(given)[0]
        finally:
            set_track_meta(True)
        return {"image": patch["image"], "label": patch["label"], "case": self.cases[place].name}


class Onwards(Sampler[int]):
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


class CaseData(pl.LightningDataModule):
    """Loaders of training patches and of the cases that validate whole."""

    def __init__(self, train: Sequence[Case], val: Sequence[Case], plan: Plan, options: Train) -> None:
        super().__init__()
        self.train_cases, self.val, self.plan, self.options = train, val, plan, options
        self.patches: Patches | None = None

    def setup(self, stage: str) -> None:
        """Prepares the training cases."""
        if stage == "fit" and self.patches is None:
            self.patches = Patches(self.train_cases, self.plan, self.options)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches of patches, an epoch of `trainer.steps_per_epoch` steps at a time."""
        assert self.patches is not None
        assert self.trainer is not None
        batch, workers = self.plan.batch, self.options.trainer.workers
        done = self.trainer.global_step * batch
        return DataLoader(
            self.patches,
            batch_size=batch,
            sampler=Onwards(done, self.options.trainer.steps_per_epoch * batch),
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_one_thread,
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves patches; a case is only the names of its files."""
        return batch if isinstance(batch, Case) else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def val_dataloader(self) -> DataLoader[Case]:
        """The validation cases, one at a time: they are read by the predictor, as a scan from outside would be."""
        return DataLoader(self.val, batch_size=None)  # type: ignore[arg-type]


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)  # the cores belong to the network
