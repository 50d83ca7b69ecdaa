"""Runs of a sweep as jobs of a SLURM cluster: they are requeued, and go on where they were."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from segpipe.errors import ConfigError, SegpipeError
from segpipe.signals import Stopped, exit_status, handle_termination, stop
from segpipe.text import first_line

EXECUTOR = "SUBMITIT_EXECUTOR"  # set in its jobs
WARNING = "SUBMITIT_PREEMPT_SIGNAL"  # names the signal that comes some time before the end of a job


def check_slurm(words: Sequence[str]) -> None:
    """Refuse to send jobs to a cluster from a machine that is not one of its nodes.

    Raises:
        ConfigError: if the words of a command line ask for it.
    """
    only_shown = "--cfg" in words or "-c" in words
    if "hydra/launcher=slurm" in words and not only_shown and not shutil.which("srun"):
        raise ConfigError(
            "hydra/launcher=slurm: there is no srun here; start the sweep on a node of the cluster"
        )


@contextmanager
def naming_lost_jobs(again: str) -> Iterator[None]:
    """Say in one line that a job of a sweep has ended without a result, or was not accepted.

    Args:
        again: what to type to go on with the sweep.

    Raises:
        SegpipeError: if that happens in the block.
    """
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith("submitit."):
            raise
        raise SegpipeError(
            f"a job of the sweep was lost: {first_line(error)} When the others have ended, "
            f"{again} goes on with it"
        ) from None


@contextmanager
def requeued(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Let the signal before the end of a job end its run as Ctrl-C does, then requeue the job.

    So the run keeps a checkpoint of its last step. SIGTERM, by which SLURM takes the nodes of a job
    for another one, ends it likewise; SLURM itself requeues the job then. In a process that is no
    job of submitit, or not the first of one, nothing is changed.

    Raises:
        SystemExit: after either signal.
    """
    if EXECUTOR not in environment or environment.get("SLURM_PROCID", "0") != "0":
        yield
        return
    number = getattr(signal, "SIG" + environment.get(WARNING, "USR2"))
    requeue = signal.signal(number, stop)  # what submitit has set
    handle_termination()
    try:
        yield
    except Stopped as error:
        if error.number == number and callable(requeue):
            requeue(number, None)  # ends this process, or raises why the job may not go on
        sys.exit(exit_status(error))
    finally:
        signal.signal(number, requeue)
