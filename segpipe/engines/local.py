"""The engine of one machine: this process, or several beside it."""

import logging
import math
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from threading import Event as Flag
from typing import cast

import torch

from segpipe.config.predict import Predict
from segpipe.device import choose_device, count_cores
from segpipe.engines.events import Tell
from segpipe.engines.serving import Exchange, Message, Post, Sign, serve
from segpipe.engines.team import Hand, LostWorkerError, Team
from segpipe.engines.worker import open_worker
from segpipe.plan import Plan
from segpipe.prediction.calls import Calls
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.opening import open_predictor
from segpipe.prediction.places import LOCAL, Places
from segpipe.registry import ENGINES

GRACE_S = 5.0  # for a process to end


class Alone:
    """The worker that is this process itself.

    Args:
        options: the options of the call.
        places: the places that scans come from and masks go to.

    Raises:
        ConfigError: if a checkpoint or an option cannot be used.
    """

    def __init__(self, options: Predict, places: Places = LOCAL) -> None:
        self.worker = open_worker(options, places=places)
        self.plan = self.worker.plan
        self.calls = self.worker.calls
        predictor = self.worker.predictor
        self.description = f"{predictor.device} in {predictor.number_format}"

    def settle(self, scans: Sequence[Scan], tell: Tell, stop: Flag) -> None:
        """Settle some scans, as `Team.settle` does."""
        self.worker.settle(scans, tell, stop)


@ENGINES.register("local", help="this machine: `workers` processes, or this one alone")
def local(options: Predict, places: Places = LOCAL) -> AbstractContextManager[Alone | Team]:
    """Return the workers of this machine.

    Raises:
        ConfigError: if a checkpoint or an option cannot be used.
    """
    gpus = count_gpus(options)
    size = max(1, gpus) if options.workers == "all" else options.workers
    if size == 1:
        return nullcontext(Alone(options, places))
    choose_device(options.device)  # raises where there is none
    assert options.output is not None
    calls = Calls(options.output, shares=options.claim or options.shard is not None)
    source = Processes(options, calls.name, size, gpus)
    device = f"{gpus} GPUs" if gpus > 1 else str(choose_device(options.device))
    return closing(Team(options, plan_of(options), calls, source, device))


def count_gpus(options: Predict) -> int:
    """Return over how many GPUs the workers are spread: all, unless one or the CPU is named."""
    spread = options.device in ("auto", "cuda") and options.backend != "openvino"
    return torch.cuda.device_count() if spread else 0


def plan_of(options: Predict) -> Plan:
    """Return the plan of the network, which is opened on the CPU and checked with the options.

    Raises:
        ConfigError: if a checkpoint or an option cannot be used.
    """
    plain = {"device": "cpu", "precision": "float32", "backend": "torch", "compile": False}
    return open_predictor(options.model_copy(update=plain))[0].plan


class Processes:
    """Workers that are processes of this machine, and share its cores, memory and GPUs.

    Args:
        options: the options of the call.
        family: name of the call.
        size: number of the workers.
        gpus: number of GPUs over which they are spread; 0 where the options name the device.
    """

    def __init__(self, options: Predict, family: str, size: int, gpus: int) -> None:
        self.options = options
        self.family = family
        self.size = size
        self.gpus = gpus

    def start(self, number: int) -> "Process":
        """Start a worker."""
        options = self.options
        if self.gpus:
            options = options.model_copy(update={"device": f"cuda:{number % self.gpus}"})
        threads = max(1, count_cores() // self.size)
        beside = math.ceil(self.size / max(1, self.gpus))
        return Process(number, Post(options, self.family, threads, self.size, beside))

    def ready(self, hands: Sequence[Hand], seconds: float) -> list[Hand]:
        """Return those that have sent something or are lost."""
        processes = cast("Sequence[Process]", hands)
        by_connection = {process.connection: process for process in processes}
        return [by_connection[cast(Connection, found)] for found in wait(by_connection, seconds)]


class Process:
    """A worker that is a process of this machine.

    Args:
        number: the number of the worker.
        post: what it is told.
    """

    def __init__(self, number: int, post: Post) -> None:
        self.number = number
        context = get_context("spawn")  # CUDA outlives no fork
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, post), daemon=True)
        before = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal, for it to inherit
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def send(self, message: Scan | Sign) -> None:
        """Send an answer."""
        with suppress(OSError):  # that it is lost is seen when it is listened to
            self.connection.send(message)

    def receive(self) -> Message:
        """Return the next message.

        Raises:
            LostWorkerError: if the process has ended.
        """
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join(GRACE_S)
            raise LostWorkerError(_how(self.process.exitcode)) from None

    def end(self, is_told: bool) -> None:
        """End the process: let one that was sent `Sign.END` do so itself, others by force."""
        if is_told:
            self.process.join(GRACE_S)
        self.process.kill()
        self.process.join(GRACE_S)
        self.connection.close()


def work(connection: Connection, post: Post) -> None:
    """Settle scans in this process until the other end of the connection says so, or is gone."""
    logging.getLogger().addHandler(logging.NullHandler())
    serve(post, Exchange(connection.send, connection.recv))


def _how(exit_code: int | None) -> str:
    """Return how a process has ended."""
    if exit_code is None:
        return "it has closed its connection"
    if exit_code >= 0:
        return f"it ended with status {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"ended by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
