"""Calls of `predict.py` on remote folders, and a proxy that cuts connections."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nibabel as nib
import numpy as np
from support.checkpoints import write_checkpoint

from segpipe.batch import predict_batch
from segpipe.config.compose import defaults
from segpipe.config.predict import Predict
from segpipe.config.validation import validate
from segpipe.prediction.remote_places import at_hand
from segpipe.reporting.collecting import collect
from segpipe.terminal import logged_to

NAMES = [f"case_{number}" for number in range(3)]


def scan_bytes(seed: int, shape: tuple[int, int, int] = (20, 16, 8)) -> bytes:
    voxels = np.random.default_rng(seed).integers(0, 900, shape).astype(np.int16)
    return nib.Nifti1Image(voxels, np.diag([1.0, 1, 2, 1])).to_bytes()


def options(folder: Path, **changed: object) -> Predict:
    """The options of a call with the checkpoint of a folder."""
    if not (folder / "some.ckpt").exists():
        write_checkpoint(folder / "some.ckpt")
    given = {"checkpoint": str(folder / "some.ckpt"), "device": "cpu", "overlays": False}
    return validate(Predict, defaults("predict") | given | changed)


def predict(folder: Path, **changed: object) -> int:
    """Call what `predict.py` calls, and return its status."""
    asked = options(folder, **changed)
    with at_hand(asked) as (local, places):
        assert local.output is not None
        with logged_to(local.output / "predict.log"):
            return (collect if asked.collect else predict_batch)(local, places)


class CuttingProxy:
    """A proxy of one server that cuts connections after some bytes of an answer or a question.

    Attributes:
        port: on which it listens.
        cuts: how many connections are to be cut yet.
        was_cut: how many were.
    """

    def __init__(self, port: int, after: int, upwards: bool) -> None:
        self.target = port
        self.after = after
        self.upwards = upwards
        self.cuts = 0
        self.was_cut = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            for source, sink, is_up in ((client, server, True), (server, client, False)):
                arguments = (source, sink, is_up == self.upwards)
                threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, may_cut: bool) -> None:
        passed = 0
        with suppress(OSError):  # the other direction was cut
            while block := source.recv(4096):
                passed += len(block)
                if may_cut and self.cuts > 0 and passed > self.after:
                    self.cuts -= 1
                    self.was_cut += 1
                    break
                sink.sendall(block)
        for end in (source, sink):
            with suppress(OSError):  # it was closed already
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def cutting(port: int, after: int, upwards: bool = False) -> Iterator[CuttingProxy]:
    """Give a proxy that cuts connections once more than `after` bytes have passed."""
    proxy = CuttingProxy(port, after, upwards)
    try:
        yield proxy
    finally:
        proxy.listener.close()
