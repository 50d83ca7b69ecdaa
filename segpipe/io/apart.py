"""Decoders written in C, at work in a process of their own, which a damaged image may end.

    python -m segpipe.io.apart < REQUESTS > ARRAYS

The process is started by the first image that needs it, and anew after it has died. A request is a
line of JSON, its answer the arrays that it asks for; an array of text is an error, and the last.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from segpipe.errors import DataError

# what decodes each kind of file: a module, and its function from a request to arrays
DECODERS = {
    "dicom": ("segpipe.io.dicom_unpack", "unpack"),
    "png": ("segpipe.io.png", "decode"),
    "tiff": ("segpipe.io.tiff", "decode"),
}
CRASHED = "the decoder crashed or did not end"
COPIES = 8  # of an image that a decoder may hold at once
SPARE = 3 * 2**29  # bytes for code, stacks of threads and tables of a decoder
SECONDS = 60.0  # for each array, on a busy machine


@dataclass
class Decoder:
    """The process, and whose child it is: a fork of that one needs its own."""

    process: subprocess.Popen[bytes]
    parent: int

    @property
    def is_at_hand(self) -> bool:
        """Whether it runs, and as a child of this process."""
        return self.parent == os.getpid() and self.process.poll() is None


_turn = threading.Lock()
_decoder: Decoder | None = None


def decoded(kind: str, request: Any, names: Sequence[str], size: int) -> list[np.ndarray]:
    """Return the arrays of images that the other process decodes.

    Args:
        kind: one of `DECODERS`.
        request: the argument of its function, in plain values.
        names: the file of each array, for messages.
        size: bytes that they declare to unpack to, which bound the memory of the process.

    Raises:
        DataError: if one cannot be decoded, or the process died or did not end at it.
    """
    with _turn:
        process = _running()
        assert process.stdin is not None
        assert process.stdout is not None
        arrays = []
        line = json.dumps([kind, request, os.getcwd(), size])
        with suppress(OSError):  # it is gone, which is noticed below
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()
        for name in names:
            watch = threading.Timer(SECONDS, process.kill)
            watch.start()
            array = _receive(process.stdout.read)
            watch.cancel()
            if array is None:
                process.kill()
                process.wait()
                raise DataError(f"{name}: cannot be unpacked ({CRASHED}); it must be damaged")
            if array.dtype.kind == "U":
                raise DataError(array.item())
            arrays.append(array)
        return arrays


def _running() -> subprocess.Popen[bytes]:
    """Return the process, which is started where there is none."""
    global _decoder
    if _decoder is not None and _decoder.is_at_hand:
        return _decoder.process
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-m", "segpipe.io.apart"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # a Ctrl-C is for this process, which lets the image finish
    )
    _decoder = Decoder(process, os.getpid())
    return process


def _receive(read: Callable[[int], bytes]) -> np.ndarray | None:
    """Return the next array; None where the process has ended."""
    try:
        # no file: numpy would look for the position in one, which a pipe has not
        source: Any = SimpleNamespace(read=read)
        return np.lib.format.read_array(source, allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None


def _forget() -> None:
    """Leave the process to the one that this is a fork of."""
    global _turn, _decoder
    _turn = threading.Lock()
    _decoder = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def main() -> None:
    """Answer the requests of standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what decoders print must not get between the arrays
    target: Any = SimpleNamespace(write=answers.write)
    for line in sys.stdin:
        kind, request, folder, size = json.loads(line)
        os.chdir(folder)
        _bound_memory(size)
        module, function = DECODERS[kind]
        for array in _answers(getattr(import_module(module), function), request):
            np.lib.format.write_array(target, np.ascontiguousarray(array))
        answers.flush()


def _bound_memory(size: int) -> None:
    """Let a packed image that is larger than its header says end as an error, before it is held.

    Args:
        size: bytes that the images of a request declare.
    """
    with suppress(ImportError, OSError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        allowed = pages * resource.getpagesize() + SPARE + COPIES * size
        if most == resource.RLIM_INFINITY or allowed < most:
            resource.setrlimit(resource.RLIMIT_AS, (allowed, most))


def _answers(decode: Any, request: Any) -> Iterator[np.ndarray]:
    try:
        yield from decode(request)
    except DataError as error:
        yield np.array(str(error))


if __name__ == "__main__":
    main()
