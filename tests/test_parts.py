"""A step that is computed in parts, activations that are computed again, and memory that is short."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.config import composed, network
from support.datasets import write_cases
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from segpipe import checkpoint
from segpipe.errors import ConfigError
from segpipe.nets.build import build
from segpipe.nets.unet import UNet
from segpipe.run import Run
from segpipe.stored import read_yaml
from segpipe.training.task import SegmentationTask

PATCH = [12, 16, 8]
TINY = [
    "model.channels=[4,8]", "plan.batch=2", "plan.patch=[12,16,8]", "data.workers=0",
    "trainer.precision=float32", "trainer.device=cpu", "trainer.steps_per_epoch=2",
    "trainer.max_steps=4", "trainer.validations=1", "trainer.postprocess=false",
    "trainer.quality=false", "data.labels={background:0,organ:1,core:2}", "data=folder",
]  # fmt: skip


def gradients(unet: UNet, image: Tensor) -> tuple[list[Tensor], int]:
    """Return the gradients of the weights, and the bytes that are kept for them."""
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage().nbytes())
        return tensor

    unet.zero_grad()
    torch.manual_seed(1)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = unet(image)
    sum(level.square().mean() for level in logits).backward()
    return [weight.grad.clone() for weight in unet.parameters() if weight.grad is not None], sum(
        kept
    )


@pytest.mark.parametrize("word", ["model.dropout=0.3", "model.short_skips=residual"])
def test_what_is_computed_again_is_the_same(word: str) -> None:
    model = network("model.channels=[4,8,8]", word)
    unet = build(model, 1, 3, [[2] * 3] * 2, [[3] * 3] * 3).train()
    assert isinstance(unet, UNet)
    image = torch.randn(2, 1, *PATCH)
    kept, many = gradients(unet, image)
    unet.recomputes = True
    again, few = gradients(unet, image)
    assert few < 0.2 * many
    for one, other in zip(kept, again, strict=True):
        torch.testing.assert_close(one, other)


class Scarce:
    """Memory for so many patches at once, from a step on; what a training step has seen."""

    def __init__(self, most: int, first: int) -> None:
        self.most = most
        self.first = first
        self.seen: list[tuple[int, int]] = []
        self.step = SegmentationTask.training_step

    def __call__(self, task: SegmentationTask, batch: dict[str, Any], index: int) -> Tensor:
        patches = len(batch["image"])
        step = task.trainer.global_step
        self.seen.append((step, patches))
        if step >= self.first and patches > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.step(task, batch, index)


def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scarce: Scarce) -> Run:
    write_cases(tmp_path / "data", 3)
    monkeypatch.setattr(
        SegmentationTask, "training_step", lambda task, batch, index: scarce(task, batch, index)
    )
    words = [f"data.root={tmp_path / 'data'}", f"data.cache={tmp_path / 'cache'}"]
    (tmp_path / "run").mkdir()
    run = Run(composed(*TINY, *words), tmp_path / "run", [])
    run.prepare()
    run.train()
    return run


def test_a_training_that_runs_out_of_memory_goes_on_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scarce = Scarce(1, first=2)
    run = trained(tmp_path, monkeypatch, scarce)
    # an epoch of whole steps, the one that was too large, and the last epoch in two parts a step
    assert scarce.seen == [(0, 2), (1, 2), (2, 2), (2, 1), (2, 1), (3, 1), (3, 1)]
    assert "the memory of cpu was too scarce for a step of 2 patches" in caplog.text
    assert "goes on with a smaller step: step in 2 parts" in caplog.text
    assert checkpoint.load(run.folder / "checkpoints/last.ckpt").step == 4
    assert read_yaml(run.folder / "plan.yaml")["parts"] == 2
    assert run.plan.batch == 2


def test_it_goes_on_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scarce = Scarce(0, first=0)
    with pytest.raises(ConfigError, match="begin a new run with plan.memory_gib="):
        trained(tmp_path, monkeypatch, scarce)
    assert scarce.seen == [(0, 2), (0, 1)]
