"""A training whose processes torchrun or srun has started, on one machine or on several."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from segpipe.accelerator import tune_process
from segpipe.device import choose_device, device_at
from segpipe.errors import SegpipeError
from segpipe.launchers import Place
from segpipe.ranks import Ranks, is_lost, join, leave
from segpipe.text import first_line
from segpipe.training.callbacks.interrupt import follow_the_first
from segpipe.training.job import dismiss, follow

log = logging.getLogger("segpipe")


@contextmanager
def leading(place: Place, device_name: str) -> Iterator[Ranks]:
    """Lead the processes of a launcher while the block runs.

    Args:
        place: the place of this process, the first one.
        device_name: the name of the device, as in `trainer.device`.

    Raises:
        ConfigError: if there is no such device.
    """
    device = device_at(choose_device(device_name), place.local_rank)
    tune_process(device)
    ranks = join(place, device)
    yield ranks  # an error ends this process, and so the others
    dismiss(ranks)
    leave()


def follow_launched(place: Place, device_name: str) -> int:
    """Follow the first process of a launcher to its end, and return the exit status.

    Nothing is printed but an error of this process.

    Args:
        place: the place of this process.
        device_name: the name of the device, as in `trainer.device`.
    """
    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, logging.FileHandler):
            logging.getLogger().removeHandler(handler)
        else:
            handler.setLevel(logging.ERROR)
    follow_the_first()
    device = device_at(choose_device(device_name), place.local_rank)
    tune_process(device)
    try:
        follow(join(place, device), device)
    except SegpipeError as error:
        print(f"device {place.rank}: {first_line(error)}", file=sys.stderr)
        return error.exit_status
    except RuntimeError as error:
        if not is_lost(error):
            raise
        log.debug("device %d: the first process has ended: %s", place.rank, first_line(error))
        return 1
    leave()
    return 0
