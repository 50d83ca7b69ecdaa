"""Which run of a sweep begins, and about how long the sweep still takes."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from segpipe.config.compose import sweep_jobs
from segpipe.config.quoting import invocation, typed
from segpipe.errors import ConfigError
from segpipe.resume import is_done
from segpipe.text import count, spoken

log = logging.getLogger("segpipe")
SCORES = "validation.csv"  # written at the end of a run


@contextmanager
def shown(sweep: Path, number: int, overrides: Sequence[str]) -> Iterator[None]:
    """Say which run of a sweep begins, and how many are left where a signal ends it.

    Args:
        sweep: folder of the sweep.
        number: the number of the run, from 0.
        overrides: the overrides of the run.
    """
    _announce(sweep, number, overrides)
    try:
        yield
    except KeyboardInterrupt:
        total = len(sweep_jobs(sweep))
        done = sum(map(is_done, sweep.iterdir()))
        again = f"{invocation('train')} {typed('resume', sweep)}"
        log.warning("%d of %s left; go on with: %s", total - done, count(total, "run"), again)
        raise


def _announce(sweep: Path, number: int, overrides: Sequence[str]) -> None:
    """Log the number of a run, what it varies, and about how long all runs still take.

    The time is known once a run is done. It is by the runs that were done since the sweep was
    started, or started again, so runs beside one another are counted as they are.
    """
    try:
        jobs = sweep_jobs(sweep)
    except ConfigError:  # of a sweeper that makes its jobs as it goes
        return
    common = set(jobs[0]).intersection(*jobs) if len(jobs) > 1 else set()
    varied = [word for word in overrides if word not in common]
    begun = (sweep / "multirun.yaml").stat().st_mtime
    done = list(filter(is_done, sweep.iterdir()))
    lately = sum((run / SCORES).stat().st_mtime >= begun for run in done)
    left = ""
    if lately and len(done) < len(jobs):
        seconds = (time.time() - begun) / lately * (len(jobs) - len(done))
        left = f"; about {spoken(seconds)} left"
    log.info("run %d of %d: %s%s", number + 1, len(jobs), " ".join(varied), left)
