"""The pretended GPU sees what a GPU refuses, and for what the host waits."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from support.pretended_gpu import PretendedGpu, pretended_gpu
from torch import Tensor, nn

CUDA = torch.device("cuda", 0)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpu]:
    with pretended_gpu(monkeypatch) as gpu:
        yield gpu


def test_tensors_stay_where_they_are_computed(pretended: PretendedGpu) -> None:
    network = nn.Conv3d(1, 2, 3).to("cuda")
    loss = network(torch.ones(1, 1, 8, 8, 8, device="cuda")).sum()
    loss.backward()
    assert network.weight.grad is not None
    assert network.weight.grad.device == loss.device == CUDA
    assert loss.detach().cpu().device.type == "cpu"
    assert torch.zeros(3).device.type == "cpu"


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x + torch.ones(4),
        lambda x: torch.stack([x, torch.ones(4)]),
        lambda x: torch.ones(4).add_(x),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: nn.functional.linear(x, torch.ones(2, 4)),
        lambda x: x + torch.ones(4, device="cuda:1"),
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
        lambda x: x.pin_memory(),
    ],
)
def test_a_device_mismatch_is_an_error(pretended: PretendedGpu, fault) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((RuntimeError, TypeError), match="cuda|GPU"):
        fault(torch.ones(4, device="cuda"))


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x[0].item(),
        lambda x: float(x.sum()),
        lambda x: bool((x > 0).all()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: torch.unique(x),
        lambda x: torch.equal(x, x),
        lambda x: f"{x.sum():.3f}",
        lambda x: torch.ones(4).to(x),
        lambda x: torch.ones(4).to("cuda", non_blocking=True),
        lambda x: torch.ones(4).pin_memory().to("cuda"),
        lambda x: x.copy_(torch.ones(4)),
        lambda x: torch.tensor([1, 2], device=x.device),
        lambda x: torch.cuda.synchronize(),
    ],
)
def test_a_wait_is_noted_with_its_line(pretended: PretendedGpu, fault) -> None:  # type: ignore[no-untyped-def]
    x = torch.ones(4, device="cuda")
    assert not pretended.waits
    fault(x)
    assert pretended.waits.total() >= 1
    assert all(line.startswith("test_pretended_gpu.py:") for line in pretended.waits)


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x * 2 + torch.tensor(3.0),
        lambda x: x.to(torch.float16).clone(),
        lambda x: torch.where(x > 0, x, 0.0).sum(),
        lambda x: torch.ones(4).pin_memory().to("cuda", non_blocking=True) + x,
        lambda x: torch.arange(4, device=x.device) + x.new_zeros(4),
    ],
)
def test_what_a_gpu_does_by_itself_is_no_wait(pretended: PretendedGpu, use) -> None:  # type: ignore[no-untyped-def]
    made: Tensor = use(torch.ones(4, device="cuda"))
    assert made.device == CUDA
    assert not pretended.waits
