"""The engine of a Ray cluster: each worker is an actor, on any of its machines.

The machines share the files of the scans, of the checkpoints and of the output under one path.
"""

import logging
import math
import os
import signal
import threading
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

from segpipe.config.predict import Predict
from segpipe.device import count_cores
from segpipe.engines.local import GRACE_S, plan_of
from segpipe.engines.serving import Exchange, Message, Post, Sign, serve
from segpipe.engines.team import Hand, LostWorkerError, Team
from segpipe.errors import ConfigError
from segpipe.prediction.calls import Calls
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.places import LOCAL, Places
from segpipe.registry import ENGINES
from segpipe.text import count, first_line

ANSWERS = "answers"  # methods of an actor that run beside the one which computes


@ENGINES.register("ray", help="a Ray cluster: `workers` actors (pip install 'segpipe[ray]')")
@contextmanager
def on_ray(options: Predict, _places: Places = LOCAL) -> Generator[Team, None, None]:
    """Give the workers of the cluster that `RAY_ADDRESS` names, else of one on this machine.

    Their scans and masks lie in folders that all machines see; addresses are refused before.

    Raises:
        ConfigError: if Ray is not installed, there is no such cluster, or a checkpoint or an option
            cannot be used.
    """
    if options.device not in ("auto", "cuda", "cpu"):
        raise ConfigError(
            f"device={options.device}: with engine=ray the cluster chooses the GPU; give "
            "device=auto, cuda or cpu"
        )
    ray = _import_ray()
    plan = plan_of(options)
    assert options.output is not None
    with _connected(ray):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        source = Actors(ray, options, nodes)
        calls = Calls(options.output, shares=options.claim or options.shard is not None)
        source.family = calls.name
        with closing(Team(options, plan, calls, source, source.description)) as team:
            yield team


def _import_ray() -> Any:
    """Return the module `ray`.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError(
            "engine=ray: Ray is not installed: pip install 'segpipe[ray]', or use engine=local"
        ) from None
    return ray


@contextmanager
def _connected(ray: Any) -> Generator[None, None, None]:
    """Be connected to a cluster while the block runs.

    Raises:
        ConfigError: if there is none at the address.
    """
    if ray.is_initialized():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"engine=ray: no cluster ({first_line(error)})") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # which Ray has made its own
    try:
        yield
    finally:
        ray.shutdown()


def cores_for(workers: int, cores: Sequence[int], most: Sequence[int]) -> int:
    """Return the cores of each worker, so that all find room.

    Args:
        workers: number of them.
        cores: number of cores of each machine.
        most: workers for which each machine has GPUs, where they need some.
    """
    for number in range(max(cores), 1, -1):
        room = [min(have // number, limit) for have, limit in zip(cores, most, strict=True)]
        if sum(room) >= workers:
            return number
    return 1


class Actors:
    """Workers that are actors of a Ray cluster.

    Args:
        ray: the module.
        options: the options of the call.
        nodes: what each machine has, as `{"CPU": 8.0, "GPU": 1.0}`.

    Raises:
        ConfigError: if a GPU is asked for and there is none.
    """

    def __init__(self, ray: Any, options: Predict, nodes: Sequence[dict[str, float]]) -> None:
        self.ray = ray
        self.options = options
        self.family = ""
        on_gpus = options.device != "cpu"
        gpus = int(sum(node.get("GPU", 0) for node in nodes)) if on_gpus else 0
        if options.device == "cuda" and not gpus:
            raise ConfigError("device=cuda, but the Ray cluster has no GPU: use device=cpu or auto")
        self.size = (gpus or len(nodes)) if options.workers == "all" else options.workers
        self.beside = math.ceil(self.size / gpus) if gpus else 1  # workers on each GPU
        cores = [int(node.get("CPU", 1)) for node in nodes]
        most = [int(node.get("GPU", 0)) * self.beside for node in nodes] if gpus else cores
        self.cores = cores_for(self.size, cores, most)
        self.gpu_share = 1 / self.beside if gpus else 0
        on = count(gpus, "GPU") if gpus else f"{count(self.cores, 'core')} each"
        self.description = f"Ray, {count(len(nodes), 'machine')}, {on}"

    def start(self, number: int) -> "Actor":
        """Start a worker."""
        kind = self.ray.remote(concurrency_groups={ANSWERS: 1})(Remote)
        post = Post(self.options, self.family, self.cores, self.size, self.beside)
        actor = kind.options(num_cpus=self.cores, num_gpus=self.gpu_share).remote(post, Path.cwd())
        return Actor(self.ray, number, actor)

    def ready(self, hands: Sequence[Hand], seconds: float) -> list[Hand]:
        """Return those that have sent something or are lost."""
        actors = cast("Sequence[Actor]", hands)
        by_messages = {actor.messages: actor for actor in actors}
        found, _ = self.ray.wait(list(by_messages), num_returns=1, timeout=seconds)
        return [by_messages[messages] for messages in found]


class Actor:
    """A worker that is an actor of a Ray cluster.

    Args:
        ray: the module.
        number: the number of the worker.
        actor: the handle of the actor.
    """

    def __init__(self, ray: Any, number: int, actor: Any) -> None:
        self.ray = ray
        self.number = number
        self.actor = actor
        self.messages = actor.run.options(num_returns="streaming").remote()

    def send(self, message: Scan | Sign) -> None:
        """Send an answer."""
        self.actor.answer.options(concurrency_group=ANSWERS).remote(message)

    def receive(self) -> Message:
        """Return the next message.

        Raises:
            LostWorkerError: if the actor has ended.
        """
        try:
            return self.ray.get(next(self.messages))
        except StopIteration:
            raise LostWorkerError("it ended") from None
        except self.ray.exceptions.RayError as error:
            raise LostWorkerError(first_line(error)) from None

    def end(self, is_told: bool) -> None:
        """End the actor: let one that was sent `Sign.END` do so itself, others by force."""
        if is_told:
            self.ray.wait([self.messages.completed()], timeout=GRACE_S)
        with suppress(self.ray.exceptions.RayError):
            self.ray.kill(self.actor)


class Remote:
    """What an actor does, on its own machine.

    Args:
        post: what it is told.
        folder: the folder that relative paths start from.

    Raises:
        ConfigError: if the folder is not there.
    """

    def __init__(self, post: Post, folder: Path) -> None:
        try:
            os.chdir(folder)
        except OSError:
            raise ConfigError(f"engine=ray: {folder} is not there on all machines") from None
        beside = max(1, count_cores() // post.threads)
        self.post = replace(post, sharing=min(post.sharing, beside))
        self.answers: SimpleQueue[Scan | Sign] = SimpleQueue()

    def run(self) -> Generator[Message, None, None]:
        """Settle scans, and yield what is to be told of them."""
        messages: SimpleQueue[Message | None] = SimpleQueue()

        def work() -> None:
            try:
                serve(self.post, Exchange(messages.put, self.answers.get))
            finally:
                messages.put(None)

        threading.Thread(target=work, daemon=True).start()
        while True:
            message = messages.get()
            if message is None:
                return
            yield message

    def answer(self, message: Scan | Sign) -> None:
        """Take an answer."""
        self.answers.put(message)
