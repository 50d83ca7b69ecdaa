"""Loggers of libraries that say what nobody who uses segpipe can act on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(*names: str, level: int = logging.ERROR) -> Iterator[None]:
    """Let these loggers say only what is at least this grave, while the block runs."""
    loggers = list(map(logging.getLogger, names))
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, earlier in zip(loggers, levels, strict=True):
            logger.setLevel(earlier)
