"""Several devices train as one: two processes of the CPU, held against one."""

from pathlib import Path

import pytest
import torch
from support.ranks import on_two
from support.config import composed
from support.plans import fingerprint
from torch import Tensor

from segpipe.config.train import Loss
from segpipe.plan import Plan
from segpipe.planning.rules import make_plan
from segpipe.ranks import Ranks
from segpipe.registry import LOSSES
from segpipe.training.loss import SegmentationLoss

LABELS = {"background": 0, "organ": 1, "vessel": 2}
REGIONS = "data.regions={both:[1,2],vessel:[2]}"


def plan(*overrides: str) -> Plan:
    options = composed(*overrides)
    return make_plan(options, fingerprint((1, 1, 1), (64, 64, 64)), ["MRI"], LABELS, "cpu")


def loss_and_gradient(
    loss: SegmentationLoss, logits: Tensor, label: Tensor
) -> tuple[Tensor, Tensor]:
    own = logits.clone().requires_grad_()
    value = loss([own, own[..., ::2, ::2, ::2]], label)
    value.backward()
    assert own.grad is not None
    return value.detach(), own.grad


@pytest.mark.parametrize("annotated", ["labels", "regions", "ignoring"])
def test_every_term_over_two_devices_is_that_of_one(annotated: str) -> None:
    """Also where one device holds all voxels of a label, or fewer annotated ones."""
    rng = torch.Generator().manual_seed(0)
    words = [REGIONS] if annotated == "regions" else []
    if annotated == "ignoring":
        words = ["data.ignore_label=3"]
    planned = plan(*words)
    classes = planned.outputs
    logits = torch.randn(4, classes, 8, 8, 8, generator=rng)
    label = torch.randint(0, 3, (4, 1, 8, 8, 8), generator=rng, dtype=torch.uint8)
    label[:2][label[:2] == 2] = 0
    if annotated == "ignoring":
        label[0, :, 2:] = 255
    names = [name for name in LOSSES.names() if annotated != "ignoring" or name != "cldice"]
    losses = {name: SegmentationLoss(planned, {name: 1.0}, None) for name in names}

    def halves(ranks: Ranks) -> dict[str, tuple[Tensor, Tensor]]:
        own = slice(2 * ranks.rank, 2 * ranks.rank + 2)
        found = {}
        for name, loss in losses.items():
            value, gradient = loss_and_gradient(loss, logits[own], label[own])
            found[name] = (value.numpy(), gradient.numpy())
        return found

    first, second = on_two(halves)
    for name, loss in losses.items():
        value, gradient = loss_and_gradient(loss, logits, label)
        mean = (first[name][0] + second[name][0]) / 2
        assert mean == pytest.approx(float(value), rel=1e-5), name
        both = torch.cat([torch.from_numpy(first[name][1]), torch.from_numpy(second[name][1])]) / 2
        torch.testing.assert_close(both, gradient, rtol=1e-4, atol=1e-7, msg=name)
