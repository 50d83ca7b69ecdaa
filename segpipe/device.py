"""The device and the number format of a computation, and the memory that it may use."""

import ctypes
import os
import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from segpipe.control_groups import ControlGroup, own_groups
from segpipe.errors import ConfigError
from segpipe.memory import total_bytes

NumberFormat = Literal["float32", "bf16", "fp16"]
M_TRIM_THRESHOLD = -1  # parameters of mallopt(3)
M_MMAP_MAX = -4
THREADS = "OMP_NUM_THREADS"  # with it in the environment, the number of threads stays as it says
FIRST_BF16 = (8, 0)  # compute capability of the first GPUs that have it, as Ampere
FIRST_TENSOR_CORES = (7, 0)  # and of the first that multiply fp16 in hardware, as Volta
# share of the memory; the rest is for other processes and for fragmentation
USABLE = {"cuda": 0.9, "cpu": 0.7}


@dataclass
class Sharing:
    """How many processes of one call share what this one computes with.

    Attributes:
        machine: processes that share the memory of the machine.
        gpu: processes that share that of the GPU.
    """

    machine: int = 1
    gpu: int = 1


SHARING = Sharing()


def choose_device(name: str) -> torch.device:
    """Return the device of this name: `cpu`, `cuda` (the first GPU), `cuda:N`, or `auto`.

    `auto` is the first GPU if there is one, else the CPU.

    Raises:
        ConfigError: if the GPU that is requested is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    if not count:
        raise ConfigError(
            f"device={name}, but torch finds no CUDA device here: use device=cpu or auto"
        )
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        last = "" if count == 1 else f" to cuda:{count - 1}"
        raise ConfigError(f"device={name}, but the CUDA devices here are cuda:0{last}")
    return torch.device("cuda", index)


def count_devices(name: str, devices: int | Literal["all"]) -> int:
    """Return how many devices of this machine train a network.

    Args:
        name: the name of the device, as `choose_device` takes it.
        devices: number of devices, or `all`; the CPU is one, that several processes may share.

    Raises:
        ConfigError: if there are fewer GPUs.
    """
    if choose_device(name).type == "cpu":
        return 1 if devices == "all" else devices
    present = torch.cuda.device_count()
    if devices == "all":
        return present
    if devices > present:
        raise ConfigError(f"trainer.devices={devices}, but torch finds {present} CUDA devices here")
    return devices


def device_at(first: torch.device, local_rank: int) -> torch.device:
    """Return the device of a process among those of this machine, the first of which has `first`.

    A launcher may show each process a GPU of its own, which is then the first for all of them.
    """
    if first.type != "cuda" or torch.cuda.device_count() == 1:
        return first
    return torch.device("cuda", local_rank)


def choose_format(
    name: Literal["auto", "float32", "bf16", "fp16"], device: torch.device
) -> NumberFormat:
    """Return the number format of this name.

    `auto` is bf16 where the device has instructions for it: a CPU without AVX512-BF16 or AMX only
    emulates bf16, which is slower than float32. Else it is fp16 on a GPU with tensor cores, and
    float32 on any other device.

    Raises:
        ConfigError: for fp16 on a CPU, where it is neither fast nor safe.
    """
    if name == "auto":
        if _has_bf16(device):
            return "bf16"
        return "fp16" if _has_fast_fp16(device) else "float32"
    if name == "fp16" and device.type == "cpu":
        raise ConfigError("precision=fp16 needs a GPU: use bf16, float32 or auto")
    return name


def _has_bf16(device: torch.device) -> bool:
    """Return whether a device has instructions for bf16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= FIRST_BF16
    return cpu_has("avx512_bf16") or cpu_has("amx_bf16")


def cpu_has(instructions: str) -> bool:
    """Return whether the CPU has these instructions, by PyTorch's name of them."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    return bool(torch.cpu.get_capabilities().get(instructions))


def _has_fast_fp16(device: torch.device) -> bool:
    """Return whether a device multiplies matrices of fp16 in hardware, as GPUs since Volta do."""
    if device.type != "cuda":
        return False
    return torch.cuda.get_device_capability(device) >= FIRST_TENSOR_CORES


def computing_in(
    number_format: NumberFormat, device: torch.device
) -> AbstractContextManager[object]:
    """Return a context in which networks compute in this format."""
    if number_format == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if number_format == "bf16" else torch.float16)


def hold_memory(device: torch.device) -> None:
    """Let the process keep the memory that a network on the CPU frees, for its next forward pass.

    By default glibc returns every large block to the kernel, which must clear its pages again:
    about a quarter of a network's time (`benchmarks/README.md`). The setting holds for the whole
    process, so only commands call this.
    """
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def usable_mib(device: torch.device) -> float:
    """Return the MiB that a computation may use.

    It is a share of the total memory rather than of the free memory, so that a run repeated on the
    same machine gets the same plan. Processes that `share_machine` has divided it among get the
    same part each.
    """
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory / SHARING.gpu
    else:
        total = total_bytes() / SHARING.machine
    return USABLE[device.type] * total / 2**20


def share_machine(threads: int, machine: int, gpu: int) -> None:
    """Let this process take its part of a machine that several processes of a call share.

    Args:
        threads: the threads that it may use; fewer where the environment says so.
        machine: number of the processes that share the memory.
        gpu: number of those that share the GPU of this one.
    """
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    SHARING.machine = machine
    SHARING.gpu = gpu


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; the host does not wait where it is copied to a GPU."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def count_cores() -> int:
    """Return how many cores this process may use, which a batch system or a container may limit."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    limits = [limit for group in own_groups("cpu") if (limit := _core_limit(group)) is not None]
    return max(1, int(min([cores, *limits])))


def _core_limit(group: ControlGroup) -> float | None:
    """Return the cores that a group may keep busy; None where it has no limit, or shows none."""
    try:
        if group.is_version_2:
            quota, period = (group.folder / "cpu.max").read_text().split()
        else:
            quota = (group.folder / "cpu.cfs_quota_us").read_text()
            period = (group.folder / "cpu.cfs_period_us").read_text()
        cores = int(quota) / int(period)
    except (OSError, ValueError):  # `max` is no number: there is no limit
        return None
    return cores if cores > 0 else None  # -1 is no limit either
