"""Which device computes, and in which number format."""

import ctypes
import os
import platform
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from segpipe.errors import ConfigError

NumberFormat = Literal["float32", "bf16", "fp16"]
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt(3)
USABLE = {
    "cuda": 0.9,
    "cpu": 0.7,
}  # share of the memory; the rest is for others and for what lies between blocks


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device of this name; `auto` is the GPU if there is one.

    Raises:
        ConfigError: if a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device=cuda, but torch finds no CUDA device here: use device=cpu or auto"
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def choose_format(
    name: Literal["auto", "float32", "bf16", "fp16"], device: torch.device
) -> NumberFormat:
    """The number format of this name; `auto` is bf16 where the device has instructions for it, else float32.

    A CPU without AVX512-BF16 or AMX only emulates bf16, which is slower than float32.

    Raises:
        ConfigError: for fp16 on a CPU, where it is neither fast nor safe.
    """
    if name == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
        able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32"
    if name == "fp16" and device.type == "cpu":
        raise ConfigError("precision=fp16 needs a GPU: use bf16, float32 or auto")
    return name


def computing_in(
    number_format: NumberFormat, device: torch.device
) -> AbstractContextManager[object]:
    """The context in which a network computes in this format."""
    if number_format == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if number_format == "bf16" else torch.float16)


def hold_memory(device: torch.device) -> None:
    """Lets this process keep the memory that a network on the CPU frees, for its next pass.

    Else glibc hands every large block back to the kernel, which has to clear all its pages again: about a quarter of a
    network's time (`benchmarks/README.md`). For whole commands, since it holds for all that the process does.
    """
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def usable_mib(device: torch.device) -> float:
    """MiB that may be used: of all the memory, not of what is free now, so that the same run makes the same plan."""
    total = (
        torch.cuda.get_device_properties(device).total_memory
        if device.type == "cuda"
        else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    )
    return USABLE[device.type] * total / 2**20
