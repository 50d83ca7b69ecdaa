"""What is chosen for a GPU, what a run on one leaves, and how it ends: tried without one."""

import json
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from support.config import composed
from support.plans import plan
from support.pretended_gpu import PretendedGpu, pretended_gpu
from torch import nn

from segpipe import accelerator
from segpipe.accelerator import (
    ALLOCATOR_SETTINGS,
    gpu_facts,
    is_out_of_memory,
    place,
    tune_process,
)
from segpipe.config.help import page
from segpipe.config.predict import Predict
from segpipe.config.train import Train
from segpipe.device import choose_device, choose_format
from segpipe.errors import ConfigError, DivergedError
from segpipe.nets.build import build
from segpipe.prediction.empty_windows import SkipEmptyWindows
from segpipe.prediction.timing import Stopwatch
from segpipe.training.callbacks.checkpoints import LastCheckpoint
from segpipe.training.finite import FiniteLoss
from segpipe.training.optim import make_optimizer
from segpipe.training.out_of_memory import out_of_memory
from segpipe.training.provenance import environment
from segpipe.training.random_state import random_states, restore_random_states

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
SECOND = torch.device("cuda", 1)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpu]:
    with pretended_gpu(monkeypatch) as one:
        yield one


# --- the device by its name


@pytest.mark.parametrize(
    ("name", "expected"),
    [("auto", CUDA), ("cuda", CUDA), ("cuda:0", CUDA), ("cuda:1", SECOND), ("cpu", CPU)],
)
def test_a_gpu_is_chosen_by_its_number(
    gpu: PretendedGpu, name: str, expected: torch.device
) -> None:
    assert choose_device(name) == expected


def test_a_gpu_that_is_not_there_is_one_line(gpu: PretendedGpu) -> None:
    with pytest.raises(ConfigError, match="device=cuda:2, but the CUDA devices here are cuda:0 to"):
        choose_device("cuda:2")


def test_a_gpu_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    with pytest.raises(ConfigError, match="device=cuda:0, but torch finds no CUDA device here"):
        choose_device("cuda:0")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cuda:1", ""),
        ("mps", "trainer.device: mps is refused: Apple's GPUs are not supported; use cpu or auto"),
        ("cuda:x", "trainer.device is 'cuda:x', which is none of 'auto', 'cpu', 'cuda' or"),
        ("gpu", "trainer.device is 'gpu', which is none of 'auto', 'cpu', 'cuda' or 'cuda:N'"),
    ],
)
def test_names_of_devices_are_checked_in_the_config(name: str, line: str) -> None:
    if not line:
        assert composed(f"trainer.device={name}").trainer.device == name
        return
    with pytest.raises(ConfigError) as raised:
        composed(f"trainer.device={name}")
    assert str(raised.value).startswith(line)


def test_the_help_says_how_devices_are_written() -> None:
    assert "[auto|cpu|cuda|cuda:N]" in page("train", "train.py", Train, ["trainer.device"])
    assert "[auto|cpu|cuda|cuda:N]" in page("predict", "predict.py", Predict, ["device"])


# --- speed switches


@pytest.mark.parametrize(
    ("capability", "expected"), [((9, 0), "bf16"), ((7, 5), "fp16"), ((6, 1), "float32")]
)
def test_the_number_format_is_what_the_gpu_has_hardware_for(
    gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert choose_format("auto", CUDA) == expected


@pytest.mark.parametrize("own", [None, *ALLOCATOR_SETTINGS])
def test_a_process_is_tuned_for_its_gpu(
    gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    monkeypatch.setattr(os, "environ", {own: "max_split_size_mb:64"} if own else {})
    current: list[torch.device] = []
    cudnn = SimpleNamespace(benchmark=False, allow_tf32=True)
    matmul = SimpleNamespace(allow_tf32=True)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    tune_process(SECOND)
    assert current == [SECOND]
    assert cudnn == SimpleNamespace(benchmark=True, allow_tf32=False)
    assert not matmul.allow_tf32
    growing = {ALLOCATOR_SETTINGS[0]: "expandable_segments:True"}
    assert os.environ == ({own: "max_split_size_mb:64"} if own else growing)


@pytest.mark.parametrize(
    ("norm", "on_gpu", "channels_last"),
    [("instance", False, True), ("instance", True, False), ("batch", True, True)],
)
def test_weights_are_laid_out_for_device_and_norm(
    gpu: PretendedGpu, norm: str, on_gpu: bool, channels_last: bool
) -> None:
    options = composed("model.channels=[4,8]", f"model.norm={norm}")
    made = plan("plan.patch=[8,8,8]")
    network = build(options.model, 1, made.outputs, made.strides, made.kernels)
    placed = place(network, CUDA if on_gpu else CPU)
    weights = [one for one in placed.parameters() if one.ndim == 5 and one.shape[2] > 1]
    assert all(one.device == (CUDA if on_gpu else CPU) for one in weights)
    contiguous = [one.is_contiguous() for one in weights if one.shape[1] > 1]
    assert contiguous
    assert not any(contiguous) if channels_last else all(contiguous)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_fused_optimiser_steps_as_the_plain_one(
    name: str,
) -> None:
    options = composed(f"optim={name}").optim
    weights = []
    for fused in (False, True):
        torch.manual_seed(0)
        network = nn.Linear(4, 3)
        optimiser = make_optimizer(network, options)
        assert not optimiser.param_groups[0].get("fused")
        for group in optimiser.param_groups:
            group["fused"] = fused
        network(torch.ones(2, 4)).square().sum().backward()
        optimiser.step()
        weights.append(network.weight.detach())
    assert torch.allclose(weights[0], weights[1], atol=1e-6)
    assert not getattr(optimiser, "_step_supports_amp_scaling", False)  # Lightning may clip


def test_the_optimiser_is_fused_on_a_gpu(gpu: PretendedGpu) -> None:
    made = make_optimizer(nn.Linear(4, 3).to("cuda"), composed().optim)
    assert all(group["fused"] for group in made.param_groups)


# --- random states


def test_a_run_goes_on_with_fewer_gpus_or_none(
    gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_one(state: torch.Tensor, to: torch.device) -> None:
        if to.index > 0:
            raise IndexError("list index out of range")
        given.append(state)

    given: list[torch.Tensor] = []
    monkeypatch.setattr(torch.cuda, "set_rng_state", only_one)
    of_four = [torch.get_rng_state(), *[torch.full((16,), n, dtype=torch.uint8) for n in range(4)]]
    restore_random_states(of_four, CUDA)
    restore_random_states(of_four, CPU)
    restore_random_states(of_four[:1], CUDA)
    assert [int(state[0]) for state in given] == [0]


def test_only_the_state_of_the_runs_own_gpu_is_kept(gpu: PretendedGpu) -> None:
    torch.cuda.set_rng_state(torch.full((16,), 7, dtype=torch.uint8), SECOND)
    states = random_states(SECOND)
    assert len(states) == 2
    assert int(states[1][0]) == 7
    assert len(random_states(CPU)) == 1


# --- a loss that is no number


def terms(value: float, where: torch.device) -> dict[str, torch.Tensor]:
    return {"dice": torch.ones((), device=where), "ce": torch.full((), value, device=where)}


def test_a_loss_that_is_no_number_ends_the_step_on_the_cpu() -> None:
    finite = FiniteLoss()
    finite.check(0, terms(1.0, CPU), ["a"])
    with pytest.raises(DivergedError, match=r"step 1: the loss is nan \(dice 1, ce nan\) on .* b;"):
        finite.check(1, terms(float("nan"), CPU), ["b"])


def test_on_a_gpu_it_ends_the_next_step_and_nobody_waits(gpu: PretendedGpu) -> None:
    finite = FiniteLoss()
    finite.check(0, terms(1.0, CUDA), ["a"])
    finite.check(1, terms(float("inf"), CUDA), ["b"])
    with pytest.raises(DivergedError, match=r"step 1: the loss is inf .* patches of b;"):
        finite.check(2, terms(1.0, CUDA), ["c"])
    assert not gpu.waits


def test_the_last_loss_is_looked_at_before_anything_is_kept(gpu: PretendedGpu) -> None:
    finite = FiniteLoss()
    finite.check(5, terms(float("nan"), CUDA), ["a"])
    with pytest.raises(DivergedError, match="step 5"):
        finite.check_last()
    finite.check_last()


# --- checkpoints by what they cost


@pytest.mark.parametrize(("every", "least", "most"), [(None, 8, 11), (timedelta(seconds=40), 4, 6)])
def test_an_epoch_is_passed_over_where_writing_would_take_long(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every: timedelta | None,
    least: int,
    most: int,
) -> None:
    now = [0.0]
    saved: list[float] = []

    def save(*_: Any) -> None:
        saved.append(now[0])
        now[0] += 1.0  # what a writing takes

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr("pytorch_lightning.callbacks.ModelCheckpoint.on_train_epoch_end", save)
    last = LastCheckpoint(tmp_path, every)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    task = pl.LightningModule()
    for _ in range(100):
        now[0] += 2.0  # an epoch
        last.on_train_epoch_end(trainer, task)
    assert saved[0] == 2.0
    assert least <= len(saved) <= most
    assert len(saved) / now[0] <= 0.055
    number = len(saved)
    trainer.should_stop = True
    last.on_train_epoch_end(trainer, task)
    assert len(saved) == number + 1


# --- out of memory


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: out of memory",
        "CUDA driver error: memory allocation failure",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "Unable to find a valid cuDNN algorithm to run convolution",
        "GET was unable to find an engine to execute this computation",
        "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    ],
)
def test_messages_that_mean_too_little_memory_are_recognised(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(ValueError(message))


def test_other_errors_of_a_gpu_are_not_taken_for_it() -> None:
    for message in ("CUDA error: an illegal memory access was encountered", "device-side assert"):
        assert not is_out_of_memory(RuntimeError(message))


def test_a_training_without_memory_says_how_to_plan_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segpipe.training.out_of_memory.usable_mib", lambda _device: 8192.0)
    line = str(out_of_memory(plan("plan.patch=[8,8,8]", "plan.batch=2"), CUDA))
    assert "the memory of cuda:0 was too scarce for a step of 2 patches of 8x8x8" in line
    assert "plan.memory_gib=6.0" in line


# --- what is recorded and measured


def test_the_environment_names_the_gpu_and_what_drives_it(
    gpu: PretendedGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = tmp_path / "version"
    version.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5\nGCC version: 12.2.0"
    )
    monkeypatch.setattr(accelerator, "DRIVER", version)
    found = json.loads(environment([], SECOND))
    assert found["driver"] == "550.54.15"
    assert found["gpu"] == "pretended"
    assert found["gpu_index"] == 1
    assert found["gpu_memory_mib"] == 80 * 1024
    assert {"cuda", "cudnn", "compute_capability"} <= set(found)
    version.unlink()
    assert gpu_facts(CUDA)["driver"] is None
    assert gpu_facts(CPU) == {}


def test_the_time_of_a_gpu_is_that_between_its_events(
    gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda.Event, "elapsed_time", lambda _start, _end: 250.0)
    stopwatch = Stopwatch(CUDA)
    for _ in range(2):
        with stopwatch.running():
            pass
    assert stopwatch.read() == 0.5
    assert stopwatch.read() == 0.5


def test_windows_of_air_are_told_apart_by_one_wait(gpu: PretendedGpu) -> None:
    network = nn.Conv3d(1, 2, 1).to("cuda")
    patches = torch.ones(4, 2, 4, 4, 4, device="cuda")
    patches[1, -1] = 0
    patches[3, -1] = 0
    skipping = SkipEmptyWindows(network, 2, exclusive=True)
    with torch.inference_mode():
        logits = skipping(patches)
        expected = network(patches[:1, :1])[0]
    assert gpu.waits_of("empty_windows.py").total() == 1, gpu.waits
    assert skipping.skipped == 2
    assert logits[1, 0].eq(20).all()
    assert torch.allclose(logits[2], expected)
