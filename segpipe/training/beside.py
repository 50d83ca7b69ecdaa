"""The processes that train beside this one, on the other devices of its machine."""

import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from segpipe.accelerator import tune_process
from segpipe.device import THREADS, device_at
from segpipe.errors import SegpipeError
from segpipe.launchers import Place
from segpipe.ranks import Ranks, call, is_lost, join, leave, listen
from segpipe.training.callbacks.interrupt import follow_the_first
from segpipe.training.job import dismiss, follow

log = logging.getLogger("segpipe")
GRACE_S = 30.0  # for a process to end by itself, or to say why it has ended
LEFT_ALONE = 70  # exit status of a process that ends because another one has


class Beside:
    """A process that trains on another device of this machine.

    Args:
        place: the place of the process.
        device: the device of the first process.
        threads: number of threads on which it computes.
    """

    def __init__(self, place: Place, device: torch.device, threads: int) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA outlives no fork
        self.rank = place.rank
        self.errors, sender = context.Pipe(duplex=False)
        self.process: SpawnProcess = context.Process(
            target=_begin, args=(place, device, threads, sender)
        )
        self.process.start()
        sender.close()

    def error(self, patience_s: float) -> SegpipeError | None:
        """Return why the process has ended, or ends within so many seconds; None if it has not."""
        try:
            if self.errors.poll(patience_s):
                return self.errors.recv()
        except EOFError:  # it has ended without a word
            self.process.join(GRACE_S)
        status = self.process.exitcode
        if status is None or status in (0, LEFT_ALONE):
            return None
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        why = ", as where memory is scarce" if status == -9 else ""
        return SegpipeError(f"the process of device {self.rank} ended {how}{why}")

    def end(self) -> None:
        """End the process, if it has not ended."""
        self.process.terminate()
        self.process.join(GRACE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextmanager
def together(size: int, device: torch.device) -> Iterator[Ranks]:
    """Have a process on each of `size` devices of this machine while the block runs.

    Args:
        size: number of the processes, this one included.
        device: the device of this process.

    Raises:
        SegpipeError: if another process fails, with its reason.
    """
    threads = max(1, torch.get_num_threads() // size)
    store = listen()
    others: list[Beside] = []
    with _computing_on(threads):
        try:
            for rank in range(1, size):
                place = Place(rank, size, rank, size, port=store.port)
                others.append(Beside(place, device, threads))
            _wait_for(others, store)
            ranks = join(Place(0, size, 0, size), device, store)
            yield ranks
            dismiss(ranks)
            for other in others:
                other.process.join()
        except SegpipeError:
            raise
        except Exception as error:
            raise _why(others, error) from None
        finally:
            for other in others:
                other.end()
            leave()


def _why(others: list[Beside], error: Exception) -> Exception:
    """Return the error of a process that has failed by itself; else the error here."""
    for other in others:
        cause = other.error(GRACE_S / len(others) if is_lost(error) else 0)
        if cause is not None:
            return cause
    return error


def _wait_for(others: list[Beside], store: Any) -> None:
    """Wait until all have started.

    Raises:
        SegpipeError: if one has ended.
    """
    while not all(store.check([_name(other.rank)]) for other in others):
        for other in others:
            error = other.error(0)
            if error is not None:
                raise error
        time.sleep(0.05)


def _name(rank: int) -> str:
    return f"started/{rank}"


def _begin(place: Place, device: torch.device, threads: int, errors: Connection) -> None:
    """Train beside the first process, from start to end of this one."""
    follow_the_first()
    logging.getLogger("segpipe").addHandler(logging.NullHandler())  # the first one says it all
    torch.set_num_threads(threads)
    own = device_at(device, place.local_rank)
    tune_process(own)
    store = call(place)
    store.set(_name(place.rank), "")
    try:
        follow(join(place, own, store), own)
    except SegpipeError as error:
        errors.send(error)
        raise SystemExit(error.exit_status) from None
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise SystemExit(LEFT_ALONE) from None
    leave()


@contextmanager
def _computing_on(threads: int) -> Iterator[None]:
    """Compute on so many threads while the block runs, as Lightning is told, too."""
    before = torch.get_num_threads()
    environment = os.environ.get(THREADS)
    os.environ[THREADS] = str(threads)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if environment is None:
            del os.environ[THREADS]
        else:
            os.environ[THREADS] = environment
