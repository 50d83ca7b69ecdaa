"""Memory of a prediction: forecast, and the ways to need less of it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from support.plans import plan
from torch import Tensor, nn

from segpipe.errors import DataError
from segpipe.geometry import Grid
from segpipe.nets.activation_memory import forward_bytes
from segpipe.nets.ensemble import Ensemble
from segpipe.plan import Plan
from segpipe.prediction import inference_plan
from segpipe.prediction.inference_plan import (
    Forecast,
    InferencePlan,
    Workload,
    default_batch_size,
    fallbacks,
    first_that_fits,
)
from segpipe.prediction.predictor import Predictor

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LINE = "needs about 900 MiB of memory where 800 MiB may be used, even with 1 window at once, blended on cpu: cut"


def made(*overrides: str) -> Plan:
    return plan("plan.patch=[8,8,8]", "plan.spacing=[1.5,1.5,1.5]", *overrides)


def grid_of(*shape: int) -> Grid:
    return Grid((shape[0], shape[1], shape[2]), np.diag([1.0, 1.0, 1.0, 1.0]))


def needed(
    grid: Grid, rung: InferencePlan, device: torch.device = CPU, of: Plan | None = None
) -> Forecast:
    return Workload(of or made(), device, 0.5, "float32", 2**20).forecast(grid, rung)


class Scarce(nn.Module):
    """A network that has memory for so many windows at once, and is otherwise a convolution."""

    def __init__(self, most: int, error: Callable[[], Exception]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(1, len(made().labels), 3, padding=1)
        self.most, self.error = most, error
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if x.any():  # not the trial, on nothing, that counts the bytes
            self.seen.append(len(x))
            if len(x) > self.most:
                raise self.error()
        return self.conv(x)


@pytest.fixture
def scan() -> MetaTensor:
    voxels = np.random.default_rng(0).normal(size=(30, 22, 18)).astype(np.float32)
    return MetaTensor(torch.from_numpy(voxels), torch.eye(4))


def test_the_bytes_that_live_at_once_are_counted() -> None:
    voxels = 4 * 6 * 5 * 4  # bytes of one channel
    chain = nn.Sequential(
        nn.Conv3d(1, 7, 3, padding=1), nn.Conv3d(7, 2, 3, padding=1), nn.Conv3d(2, 3, 1)
    )
    assert forward_bytes(chain, (1, 6, 5, 4)) == (1 + 7 + 2) * voxels
    wide = nn.Sequential(nn.Conv3d(1, 9, 1), nn.Conv3d(9, 3, 1))
    assert forward_bytes(wide, (1, 6, 5, 4)) == (1 + 9 + 3) * voxels
    assert (
        forward_bytes(Ensemble([chain, wide], True), (1, 6, 5, 4)) == (2 + 3 + 9 + 3) * voxels
    )  # and its mirror image
    large = (1, 80, 80, 80)
    assert forward_bytes(chain, large) == (1 + 7 + 2) * 4 * 80**3  # without data
    assert forward_bytes(chain, large, [4, 4, 4]) == (1 + 7 + 2) * 4 * 80**3  # on 40 x 40 x 40
    assert not any(weight.is_meta for weight in [*chain.parameters(), *wide.parameters()])


def test_a_network_of_one_size_is_counted_on_that_size() -> None:
    class Fixed(nn.Conv3d):  # as UNETR is, with an embedding for each place
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            assert input.shape[2:] == (96, 96, 96)
            return super().forward(input)

    plan = made().model_copy(update={"patch": [96, 96, 96], "strides": [[2, 2, 2]]})
    assert Predictor(Fixed(1, 2, 1), plan, CPU).workload.window_bytes == (1 + 2) * 4 * 96**3


def test_the_ladder_goes_from_the_device_to_the_host_to_fewer_windows() -> None:
    assert fallbacks(CUDA, 4) == [
        InferencePlan(CUDA, 4),
        InferencePlan(CPU, 4),
        InferencePlan(CPU, 2),
        InferencePlan(CPU, 1),
    ]
    assert fallbacks(CPU, 3) == [InferencePlan(CPU, 3), InferencePlan(CPU, 1)]
    assert fallbacks(CPU, 1) == [InferencePlan(CPU, 1)]


def test_each_rung_needs_less() -> None:
    grid = grid_of(200, 180, 160)
    on_device, on_host, two, one = (needed(grid, rung, CUDA) for rung in fallbacks(CUDA, 4))
    assert on_device.device > on_host.device > two.device > one.device > 0
    assert on_host.host > on_device.host
    assert needed(grid, InferencePlan(CPU, 1)).device == 0
    assert needed(grid, InferencePlan(CPU, 1)).host > one.host
    many = made().model_copy(update={"labels": {f"label {number}": number for number in range(61)}})
    whole = 4 * 61 * (512 * 512 * 400 / 1.5**3) / 2**20  # the logits of all of model space
    assert needed(grid_of(512, 512, 400), InferencePlan(CPU, 1), of=many).host < 0.4 * whole


def test_the_first_way_that_fits_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    rungs, room = fallbacks(CUDA, 2), {"cuda": 100.0, "cpu": 800.0}
    monkeypatch.setattr(inference_plan, "usable_mib", lambda device: room[device.type])
    assert (
        first_that_fits(
            rungs, [Forecast(90.0, 10.0), Forecast(50.0, 20.0), Forecast(40.0, 20.0)], CUDA
        )
        == rungs
    )
    assert (
        first_that_fits(
            rungs, [Forecast(110.0, 10.0), Forecast(50.0, 20.0), Forecast(40.0, 20.0)], CUDA
        )
        == rungs[1:]
    )
    assert (
        first_that_fits(
            rungs, [Forecast(110.0, 10.0), Forecast(50.0, 900.0), Forecast(40.0, 20.0)], CUDA
        )
        == rungs[2:]
    )
    with pytest.raises(DataError, match="and 140 of 100 MiB on cuda, even with 1 window at once"):
        first_that_fits(
            rungs, [Forecast(170.0, 10.0), Forecast(150.0, 20.0), Forecast(140.0, 20.0)], CUDA
        )
    with pytest.raises(DataError, match=LINE):
        first_that_fits(fallbacks(CPU, 1), [Forecast(0.0, 900.0)], CPU)


def test_windows_at_once_suit_the_device() -> None:
    assert default_batch_size(made("plan.patch=[40,40,40]"), CPU) == 2
    assert default_batch_size(made("plan.patch=[96,96,96]"), CPU) == 1
    assert default_batch_size(made("plan.patch=[96,96,96]"), CUDA) == 4


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        lambda: RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"
        ),
        lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError,
    ],
)
def test_scarce_memory_is_met_with_fewer_windows(
    error: Callable[[], Exception], scan: MetaTensor
) -> None:
    scarce, rich = Scarce(1, error), Scarce(99, error)
    found = Predictor(scarce, made(), CPU, batch_size=4).predict(scan)
    whole = Predictor(rich, made(), CPU, batch_size=4).predict(scan)
    assert scarce.seen[:3] == [4, 2, 1]
    assert set(scarce.seen[3:]) == {1}
    assert found.note == (
        "memory was too scarce for 2 windows at once, blended on cpu; done with 1 window at once, blended on cpu"
    )
    assert whole.note == ""
    assert np.array_equal(found.labels, whole.labels)


def test_what_helps_no_more_is_one_line_and_other_errors_are_not_hidden(scan: MetaTensor) -> None:
    with pytest.raises(
        DataError, match="the memory of cpu was too scarce even for 1 window at once"
    ):
        Predictor(
            Scarce(0, lambda: torch.OutOfMemoryError("CUDA out of memory")),
            made(),
            CPU,
            batch_size=2,
        ).predict(scan)
    network = Scarce(0, lambda: RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        Predictor(network, made(), CPU, batch_size=2).predict(scan)
    assert network.seen == [2]


@pytest.mark.gpu
def test_the_host_puts_together_what_the_gpu_computes(
    scan: MetaTensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Scarce(99, MemoryError).to(CUDA)
    predictor = Predictor(network, made(), CUDA, batch_size=4)
    usual = predictor.predict(scan)
    monkeypatch.setattr(predictor, "fallbacks_for", lambda _: [InferencePlan(CPU, 4)])
    assert (predictor.predict(scan).labels == usual.labels).mean() > 0.999
