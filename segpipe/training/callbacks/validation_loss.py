"""The loss on patches of validation cases, beside that of training."""

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from segpipe.config.train import Train
from segpipe.data.module import CaseData
from segpipe.data.patches import fixed_patches
from segpipe.device import computing_in
from segpipe.training.task import SegmentationTask
from segpipe.windows import to_network

NAME = "val_loss"  # of the logged value, and of the column in `metrics.csv`
MOST_PATCHES = 8
MOST_BYTES = 2**27  # of the patches together


class ValidationLoss(pl.Callback):
    """A callback that logs the loss on the same few patches at every validation.

    They are not augmented, so the loss is lower than that of training where both fit equally well.

    Args:
        options: the options of the run.
    """

    def __init__(self, options: Train) -> None:
        self.options = options
        self.patches: tuple[Tensor, Tensor] | None = None

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the loss by the weights that are validated.

        Raises:
            DataError: if a validation case cannot be used.
        """
        assert isinstance(pl_module, SegmentationTask)
        if self.patches is None:
            data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
            assert isinstance(data, CaseData)
            self.patches = self._cut(data)
        pl_module.log(NAME, _loss(pl_module, *self.patches), batch_size=1)

    def _cut(self, data: CaseData) -> tuple[Tensor, Tensor]:
        """Return images `(B, C, *patch)` and labels `(B, 1, *patch)`."""
        plan = data.plan
        patch_bytes = 4 * len(plan.channels) * int(np.prod(plan.patch))
        count = max(1, min(MOST_PATCHES, MOST_BYTES // patch_bytes))
        options = self.options
        return fixed_patches(
            data.val_cases, plan, options.plan.foreground, options.augment, count, options.seed
        )


@torch.no_grad()
def _loss(task: SegmentationTask, images: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of patches, in batches of the training's size."""
    axis = task.plan.slice_axis
    total = torch.zeros((), device=task.device)
    at_once = task.plan.batch // task.plan.parts
    batches = zip(images.split(at_once), labels.split(at_once), strict=True)
    for image, label in batches:
        with computing_in(task.number_format, task.device):
            logits = task.network(to_network(image.to(task.device), axis))
        loss = task.loss(logits, to_network(label.to(task.device), axis))
        total += len(image) * loss
    return total / len(images)
