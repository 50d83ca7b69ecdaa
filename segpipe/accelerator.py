"""What is done on a CUDA GPU that is not done on a CPU: the one place for its speed switches.

`docs/howto/gpu.md` gives the reason of each, and says which of them has been measured.
"""

import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm  # pyright: ignore[reportPrivateUsage]

from segpipe.device import THREADS, count_cores, hold_memory

# Norms that give their output channels first on CUDA, so that each convolution after one would
# copy it back.
CHANNELS_FIRST_NORMS = (_InstanceNorm, nn.GroupNorm)
# of PyTorch's memory; the second is the older name of the first
ALLOCATOR_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
DRIVER = Path("/proc/driver/nvidia/version")
# what errors of torch, CUDA, cuDNN and cuBLAS say where memory is too scarce
OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "memory allocation failure",
    "ALLOC_FAILED",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # cuBLAS finds no room for its workspace
    "Unable to find a valid cuDNN algorithm",
    "unable to find an engine to execute this computation",
)


def tune_process(device: torch.device) -> None:
    """Set what holds for the whole process where it computes on this device.

    There are no more threads than cores that a container allows, unless the environment says how
    many. On the CPU freed memory is held (`hold_memory`). On a GPU it becomes the current one;
    cuDNN chooses its algorithms by trying them, since patches and windows all have one size; and
    float32 means float32, without TF32: `precision=auto` takes a 16-bit format, which is faster.
    Memory grows in segments, so that scans of many sizes leave no gaps that none of them fits into,
    unless the environment has settings of its own. Only commands call this.
    """
    hold_memory(device)
    if THREADS not in os.environ:
        torch.set_num_threads(min(count_cores(), torch.get_num_threads()))
    if device.type != "cuda":
        return
    if sys.platform == "linux" and not any(name in os.environ for name in ALLOCATOR_SETTINGS):
        os.environ[ALLOCATOR_SETTINGS[0]] = "expandable_segments:True"  # read at the first use
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, its weights laid out as its convolutions are fastest there.

    They are channels last, as `nets.build.build` has made them, except on a GPU in a network with
    instance or group norms.
    """
    network.to(device)
    if device.type == "cuda" and _has_channels_first_norm(network):
        for parameter in network.parameters():
            parameter.data = parameter.data.contiguous()
    return network


def _has_channels_first_norm(network: nn.Module) -> bool:
    return any(isinstance(layer, CHANNELS_FIRST_NORMS) for layer in network.modules())


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch, of a GPU library or of Python means too little memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return isinstance(error, RuntimeError) and any(sign in message for sign in OUT_OF_MEMORY)


def gpu_facts(device: torch.device) -> dict[str, str | int | None]:
    """Return the GPU of a run and what drives it; nothing where the run is on the CPU."""
    if device.type != "cuda":
        return {}
    major, minor = torch.cuda.get_device_capability(device)
    return {
        "gpu": torch.cuda.get_device_name(device),
        "gpu_index": device.index,
        "compute_capability": f"{major}.{minor}",
        "gpu_memory_mib": torch.cuda.get_device_properties(device).total_memory // 2**20,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _driver_version(),
    }


def _driver_version() -> str | None:
    """Return the version of NVIDIA's driver; None where Linux does not show it."""
    try:
        line = DRIVER.read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        return None
    for word in line.split():
        if word[0].isdigit() and "." in word:
            return word
    return None
