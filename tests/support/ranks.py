"""Two processes that train together, forked from the tests: they import nothing anew."""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from segpipe.launchers import Place
from segpipe.ranks import Ranks, join, leave, listen

CPU = torch.device("cpu")
SECONDS = 120.0  # after which processes that wait for one another are ended


def on_two(function: Callable[[Ranks], Any]) -> list[Any]:
    """Call a function in two processes that have met; return what they return, in their order."""
    store = listen()
    context = multiprocessing.get_context("fork")
    processes = []
    answers = []
    for rank in range(2):
        receiver, sender = context.Pipe(duplex=False)
        place = Place(rank, 2, rank, 2, port=store.port, is_held=True)
        process = context.Process(target=_call, args=(function, place, sender))
        process.start()
        sender.close()
        processes.append(process)
        answers.append(receiver)
    try:
        return [_answer(receiver) for receiver in answers]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _answer(receiver: Connection) -> Any:
    assert receiver.poll(SECONDS), "the processes wait for one another"
    kind, value = receiver.recv()
    assert kind == "returned", value
    return value


def _call(function: Callable[[Ranks], Any], place: Place, sender: Connection) -> None:
    try:
        value = function(join(place, CPU))
    except BaseException:
        sender.send(("raised", traceback.format_exc()))
        raise
    sender.send(("returned", value))
    leave()
