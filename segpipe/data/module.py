"""The data loaders of a run: patches that train, and whole cases that validate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from segpipe.config.train import Train
from segpipe.data.augment import Augmentation, make_augmentation
from segpipe.data.cases import Case
from segpipe.data.patches import ContinuingSampler, Patches, augment_batch
from segpipe.device import count_cores
from segpipe.plan import Plan
from segpipe.ranks import ALONE, Ranks

MOST_WORKERS = 8
PREFETCHED = 4  # batches that each worker prepares ahead
NO_CASE = Case("", (), None)  # in place of a case that validates, where a device has one less


class CaseData(pl.LightningDataModule):
    """The loaders of training patches and of whole validation cases.

    Where the network is on a GPU, the patches are augmented there; else the workers augment them.
    Of several devices each has its share of every batch, and of the cases that validate.

    Args:
        train: cases that train.
        val: cases that validate.
        plan: the plan of the run.
        options: the options of the run.
        device: the device of the network.
        ranks: the processes that train together.
        entries: the entries of the training cases in the cache, where another process has prepared
            them.

    Raises:
        ConfigError: if the devices cannot share a batch.
    """

    def __init__(
        self,
        train: Sequence[Case],
        val: Sequence[Case],
        plan: Plan,
        options: Train,
        device: torch.device,
        ranks: Ranks = ALONE,
        entries: Sequence[Path] = (),
    ) -> None:
        super().__init__()
        self.train_cases = train
        self.val_cases = val
        self.plan = plan
        self.options = options
        self.device = device
        self.ranks = ranks
        self.entries = entries
        self.batch_size = ranks.patches(plan) // plan.parts  # that are computed at once
        self.workers = count_workers(options.data.workers, device, ranks.sharing)
        self.patches: Patches | None = None
        self.augmentation: Augmentation | None = None
        if device.type == "cuda":
            self.augmentation = make_augmentation(plan, options.augment)

    def setup(self, stage: str) -> None:
        """Prepare the training cases."""
        if stage == "fit" and self.patches is None:
            self.patches = Patches(
                self.train_cases,
                self.plan,
                self.options,
                augmented=self.augmentation is None,
                entries=self.entries,
            )
            self.entries = self.patches.entries

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return the loader of an epoch's patches, `trainer.steps_per_epoch` batches."""
        assert self.patches is not None
        assert self.trainer is not None
        batch = self.plan.batch
        first = self.trainer.global_step * batch
        size = self.options.trainer.steps_per_epoch * batch
        return DataLoader(
            self.patches,
            batch_size=self.batch_size,
            sampler=ContinuingSampler(first, size, self.ranks.rank, self.ranks.size, batch),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            prefetch_factor=PREFETCHED if self.workers else None,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_use_one_thread,
            # else each epoch, and each start in one, takes a number from that of the dropout
            generator=torch.Generator(),
        )

    def val_dataloader(self) -> DataLoader[Case]:
        """Return the loader of this device's validation cases, one at a time.

        It gives names of files: the predictor reads them as it reads any scan. All devices have as
        many, since Lightning has them work in step: `NO_CASE` takes the place of what is missing.
        """
        cases = self.ranks.dealt(self.val_cases)
        most = -(-len(self.val_cases) // self.ranks.size)
        cases += [NO_CASE] * (most - len(cases))
        return DataLoader(cases, batch_size=None)  # type: ignore[arg-type]

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a batch of patches to the device; a case, which names files only, stays as it is.

        So do the seeds of the patches: the host would have to fetch them back.
        """
        if isinstance(batch, Case):
            return batch
        moved = super().transfer_batch_to_device(batch | {"seed": None}, device, dataloader_idx)
        return moved | {"seed": batch["seed"]}

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment a batch of patches on the GPU."""
        if isinstance(batch, Case) or self.augmentation is None:
            return batch
        return augment_batch(self.augmentation, batch)


def count_workers(requested: int | None, device: torch.device, sharing: int = 1) -> int:
    """Return how many processes cut patches: as many as requested, else by the device.

    There are none where the network runs on the CPU, whose cores they would take from it.

    Args:
        requested: number of processes, for each device; None: by the cores.
        device: the device of the network.
        sharing: number of devices for which the cores are there.
    """
    if requested is not None:
        return requested
    if device.type != "cuda":
        return 0
    return max(0, min(count_cores() // sharing - 1, MOST_WORKERS))


def _use_one_thread(_worker: int) -> None:
    torch.set_num_threads(1)  # the other cores belong to the network
