"""GPUs that are pretended: the CPU computes, under the rules of CUDA.

A storage "on a GPU" is tagged with its device. A tensor of it may not meet a tensor that lies
elsewhere, as on a real GPU, and each operation for which the host would wait for the device is
noted with the line that caused it: a value that is fetched, a result whose shape depends on values,
a copy that is not made in the background from pinned memory.
"""

import sys
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU = torch.device("cpu")
GPUS = 2
GIB = 2**30
ATEN = torch.ops.aten
FETCHES = {ATEN._local_scalar_dense.default, ATEN.equal.default}
SHAPED_BY_VALUES = {
    ATEN.nonzero.default,
    ATEN.masked_select.default,
    ATEN._unique2.default,
    ATEN.unique_dim.default,
    ATEN.repeat_interleave.Tensor,
    ATEN.bincount.default,
}
_parse_to: Any = torch._C._nn._parse_to  # type: ignore[attr-defined]
INDEXED = {ATEN.index.Tensor, ATEN.index_put_.default, ATEN._index_put_impl_.default}
FROM_HOST = {torch.tensor, torch.as_tensor}  # with `device`, they copy what the host holds


class PretendedGpu:
    """What lies on the pretended GPUs, and how often the host has waited for them.

    Attributes:
        waits: number of waits by the line that caused them, as `windows.py:80 predict_slabs`.
    """

    def __init__(self) -> None:
        self.devices: weakref.WeakKeyDictionary[Any, torch.device] = weakref.WeakKeyDictionary()
        self.pinned: weakref.WeakSet[Any] = weakref.WeakSet()
        self.waits: Counter[str] = Counter()

    def device_of(self, tensor: Tensor) -> torch.device:
        """Return the device of a tensor: a pretended GPU, or where it really lies."""
        return self.devices.get(_storage(tensor), _real_device(tensor))

    def place(self, tensor: Tensor, device: torch.device) -> None:
        """Let a tensor lie on a device from now on."""
        if device.type == "cuda":
            self.devices[_storage(tensor)] = torch.device("cuda", device.index or 0)
        else:
            self.devices.pop(_storage(tensor), None)

    def wait(self) -> None:
        """Note that the host waits here."""
        self.waits[_line()] += 1

    def waits_of(self, *files: str) -> Counter[str]:
        """Return the waits that lines of these files have caused."""
        found = {line: number for line, number in self.waits.items() if line.startswith(files)}
        return Counter(found)


class _Rules(TorchDispatchMode):
    """What each operation may be given, where its results lie, and whether the host waits."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is ATEN.copy_.default:
            return self._copy(func, args, kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        device = self._common_device(func, given)
        if device is None:
            return func(*args, **kwargs)
        if func in FETCHES | SHAPED_BY_VALUES or (func in INDEXED and _has_mask(args[1])):
            self.gpu.wait()
        made = func(*args, **kwargs)
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and _real_device(tensor).type != "meta":
                self.gpu.place(tensor, device)
        return made

    def _common_device(self, func: Any, given: Iterable[Tensor]) -> torch.device | None:
        """Return the pretended GPU on which all tensors lie; None where none does.

        Raises:
            RuntimeError: if one lies elsewhere; a number of the host is let through.
        """
        devices = {self.gpu.device_of(tensor) for tensor in given if tensor.dim()}
        numbers = {self.gpu.device_of(tensor) for tensor in given if not tensor.dim()} - {CPU}
        there = {device for device in devices | numbers if device.type == "cuda"}
        if not there:
            return None
        if len(devices | there) > 1:
            names = " and ".join(sorted(map(str, devices | there)))
            raise RuntimeError(f"{func}: tensors on {names}, from {_line()}")
        return there.pop()

    def _copy(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Copy between any two devices; the host waits unless it asks not to."""
        target, source = args[:2]
        background = kwargs.get("non_blocking", len(args) > 2 and args[2])
        if self.gpu.device_of(target) != self.gpu.device_of(source) and not background:
            self.gpu.wait()
        return func(*args, **kwargs)


class _Api(TorchFunctionMode):
    """PyTorch's functions, as they answer about tensors on a pretended GPU."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if args and isinstance(args[0], Tensor) and func in _OF_A_TENSOR:
            return _OF_A_TENSOR[func](self.gpu, func, args, kwargs)
        goal = kwargs.get("device")
        if goal is None or torch.device(goal).type != "cuda":
            return func(*args, **kwargs)
        if func in FROM_HOST:
            self.gpu.wait()
        made = func(*args, **kwargs | {"device": CPU})
        self.gpu.place(made, torch.device(goal))
        return made


def _to(gpu: PretendedGpu, func: Any, args: Sequence[Any], kwargs: Any) -> Tensor:
    """Copy a tensor to a device, another type or another layout, as `Tensor.to` does."""
    tensor, *others = args
    if others and isinstance(others[0], Tensor):
        kwargs = {"device": gpu.device_of(others[0]), "dtype": others[0].dtype} | kwargs
        others = others[1:]
    parsable = {
        name: value for name, value in kwargs.items() if name not in ("copy", "memory_format")
    }
    device, dtype, background, _ = _parse_to(*others, **parsable)[:4]
    there = gpu.device_of(tensor)
    goal = there if device is None else _indexed(torch.device(device))
    if goal.type == "meta" or there.type == "meta":
        return Tensor.to(*args, **kwargs)
    moves = goal != there
    options = {"dtype": dtype or tensor.dtype, "copy": moves or kwargs.get("copy", False)}
    if "memory_format" in kwargs:
        options["memory_format"] = kwargs["memory_format"]
    made = Tensor.to(tensor, **options)
    if moves:
        if not background or (there == CPU and _storage(tensor) not in gpu.pinned):
            gpu.wait()
        gpu.place(made, goal)
    return made


def _cpu(gpu: PretendedGpu, func: Any, args: Sequence[Any], kwargs: Any) -> Tensor:
    return _to(gpu, func, (args[0], CPU), kwargs)


def _cuda(gpu: PretendedGpu, func: Any, args: Sequence[Any], kwargs: Any) -> Tensor:
    return _to(gpu, func, (args[0], torch.device("cuda")), kwargs)


def _device(gpu: PretendedGpu, func: Any, args: Sequence[Any], kwargs: Any) -> torch.device:
    return gpu.device_of(args[0])


def _is_cuda(gpu: PretendedGpu, func: Any, args: Sequence[Any], kwargs: Any) -> bool:
    return gpu.device_of(args[0]).type == "cuda"


def _numpy(gpu: PretendedGpu, func: Any, args: Sequence[Any], kwargs: Any) -> Any:
    if gpu.device_of(args[0]).type == "cuda":
        raise TypeError(f"can't convert a cuda tensor to numpy, in {_line()}: use Tensor.cpu()")
    return func(*args, **kwargs)


def _list(gpu: PretendedGpu, func: Any, args: Sequence[Any], kwargs: Any) -> Any:
    if gpu.device_of(args[0]).type == "cuda":
        gpu.wait()
    return func(*args, **kwargs)


def _pin(gpu: PretendedGpu, func: Any, args: Sequence[Any], kwargs: Any) -> Tensor:
    if gpu.device_of(args[0]).type == "cuda":
        raise RuntimeError(f"cannot pin a tensor on a GPU, in {_line()}: only those of the host")
    pinned = args[0].clone()
    gpu.pinned.add(_storage(pinned))
    return pinned


def _is_pinned(gpu: PretendedGpu, func: Any, args: Sequence[Any], kwargs: Any) -> bool:
    return _storage(args[0]) in gpu.pinned


def _copied(gpu: PretendedGpu, func: Any, args: Sequence[Any], kwargs: Any) -> Tensor:
    copied = func(*args, **kwargs)
    gpu.place(copied, gpu.device_of(args[0]))
    return copied


_OF_A_TENSOR: dict[Any, Any] = {
    Tensor.to: _to,
    Tensor.cpu: _cpu,
    Tensor.cuda: _cuda,
    Tensor.device.__get__: _device,  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__: _is_cuda,  # type: ignore[attr-defined]
    Tensor.numpy: _numpy,
    Tensor.__array__: _numpy,
    Tensor.tolist: _list,
    Tensor.pin_memory: _pin,
    Tensor.is_pinned: _is_pinned,
    Tensor.__deepcopy__: _copied,
}


def _storage(tensor: Tensor) -> Any:
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage()


def _real_device(tensor: Tensor) -> torch.device:
    with torch._C.DisableTorchFunction():
        return tensor.device


def _indexed(device: torch.device) -> torch.device:
    """Return a device with its number, as tensors have it."""
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def _has_mask(indices: Iterable[Tensor | None]) -> bool:
    """Return whether an index is a mask, whose number of voxels the host must know."""
    kinds = (torch.bool, torch.uint8)
    return any(index is not None and index.dtype in kinds for index in indices)


def _line() -> str:
    """Return the line of segpipe that computes now, and the one of another package that it calls.

    PyTorch's own lines are left out.
    """
    frame: FrameType | None = sys._getframe(1)
    called = ""
    while frame is not None:
        path = frame.f_code.co_filename
        place = f"{Path(path).name}:{frame.f_lineno} {frame.f_code.co_name}"
        if "/segpipe/" in path or "/tests/test_" in path:
            return place + called
        if "/torch/" not in path and path != __file__ and not called:
            called = f" in {place}"
        frame = frame.f_back
    return called


class _Event:
    """An event of a stream; what lies between two of them took no time."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.timed = enable_timing
        self.recorded = False

    def record(self) -> None:
        self.recorded = True

    def synchronize(self) -> None:
        assert self.recorded

    def elapsed_time(self, end: "_Event") -> float:
        assert self.timed
        assert end.timed
        assert self.recorded
        assert end.recorded
        return 0.0


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpu]:
    """Pretend within the block that this machine has GPUs."""
    gpu = PretendedGpu()
    states = [torch.zeros(16, dtype=torch.uint8) for _ in range(GPUS)]

    def state_of(device: Any = 0) -> Tensor:
        return (
            states[torch.device(device).index or 0]
            if not isinstance(device, int)
            else states[device]
        )

    properties = SimpleNamespace(total_memory=80 * GIB, name="pretended", major=9, minor=0)
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: GPUS,
        "current_device": lambda: 0,
        "set_device": lambda _device: None,
        "get_device_properties": lambda _device=None: properties,
        "get_device_name": lambda _device=None: properties.name,
        "get_device_capability": lambda _device=None: (9, 0),
        "is_bf16_supported": lambda including_emulation=True: True,
        "mem_get_info": lambda _device=None: (70 * GIB, 80 * GIB),
        "empty_cache": lambda: None,
        "synchronize": lambda _device=None: gpu.wait(),
        "max_memory_allocated": lambda _device=None: 0,
        "get_rng_state": lambda device="cuda": state_of(device).clone(),
        "get_rng_state_all": lambda: [state.clone() for state in states],
        "set_rng_state": lambda state, device="cuda": state_of(device).copy_(state),
        "set_rng_state_all": lambda new: [states[i].copy_(state) for i, state in enumerate(new)],
        "manual_seed": lambda _seed: None,
        "manual_seed_all": lambda _seed: None,
        "Event": _Event,
    }
    with monkeypatch.context() as patch, _Rules(gpu), _Api(gpu):
        for name, answer in answers.items():
            patch.setattr(torch.cuda, name, answer)
        patch.setattr(torch.accelerator, "is_available", lambda *_: True)
        patch.setattr(
            torch.accelerator, "current_accelerator", lambda *_, **__: torch.device("cuda")
        )
        patch.setattr(torch.accelerator, "set_device_index", lambda _device: None)
        groups = torch._C._group_tensors_by_device_and_dtype

        def grouped(lists: Any, *more: Any) -> Any:
            found = {}
            for (_, dtype), (tensors, indices) in groups(lists, *more).items():
                first: Any = tensors[0][0]
                found[gpu.device_of(first), dtype] = (tensors, indices)
            return found

        patch.setattr(torch._C, "_group_tensors_by_device_and_dtype", grouped)
        stream = SimpleNamespace(is_capturing=lambda: False)
        patch.setattr(torch.accelerator, "current_stream", lambda *_: stream)
        yield gpu
