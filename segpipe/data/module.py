"""The loaders of a run: patches that train, and cases that validate whole."""

import os
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from segpipe.config.train import Train
from segpipe.data.augment import make_augmentation
from segpipe.data.cases import Case
from segpipe.data.patches import ContinuingSampler, Patches, augment_batch
from segpipe.plan import Plan

MOST_WORKERS = 8


class CaseData(pl.LightningDataModule):
    """Loaders of training patches and of the cases that validate whole.

    Where the network is on a GPU the patches are augmented there, else by the workers.

    Args:
        train: cases that train.
        val: cases that validate.
        plan: of the run.
        options: of the run.
        device: where the network is.
    """

    def __init__(
        self,
        train: Sequence[Case],
        val: Sequence[Case],
        plan: Plan,
        options: Train,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.train_cases, self.val, self.plan, self.options = train, val, plan, options
        self.change = make_augmentation(plan, options.augment) if device.type == "cuda" else None
        self.workers = count_workers(options.data.workers, device)
        self.patches: Patches | None = None

    def setup(self, stage: str) -> None:
        """Prepares the training cases."""
        if stage == "fit" and self.patches is None:
            self.patches = Patches(
                self.train_cases, self.plan, self.options, change=self.change is None
            )

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches of patches, an epoch of `trainer.steps_per_epoch` steps at a time."""
        assert self.patches is not None
        assert self.trainer is not None
        batch, workers = self.plan.batch, self.workers
        done = self.trainer.global_step * batch
        return DataLoader(
            self.patches,
            batch_size=batch,
            sampler=ContinuingSampler(done, self.options.trainer.steps_per_epoch * batch),
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_one_thread,
        )

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Moves patches; a case is only the names of its files."""
        return (
            batch
            if isinstance(batch, Case)
            else super().transfer_batch_to_device(batch, device, dataloader_idx)
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augments patches that have come to the GPU unchanged."""
        return (
            batch
            if isinstance(batch, Case) or self.change is None
            else augment_batch(self.change, batch)
        )

    def val_dataloader(self) -> DataLoader[Case]:
        """The validation cases, one at a time: they are read by the predictor, as a scan from outside would be."""
        return DataLoader(self.val, batch_size=None)  # type: ignore[arg-type]


def count_workers(workers: int | None, device: torch.device) -> int:
    """How many processes cut patches; none where the network computes on the CPU, which they would take from it."""
    if workers is not None:
        return workers
    return min((os.cpu_count() or 1) - 1, MOST_WORKERS) if device.type == "cuda" else 0


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)  # the cores belong to the network
