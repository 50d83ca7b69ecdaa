"""Why a scan failed, in one line."""

import logging
from pathlib import Path

from segpipe.errors import DataError
from segpipe.prediction.channel_sets import Scan
from segpipe.text import first_line

log = logging.getLogger("segpipe")


def reason(scan: Scan, error: Exception) -> str:
    """Return why a scan failed, with the name of its file and what may help."""
    log.debug("%s failed", scan.name, exc_info=error)
    return one_line(scan.images[0], error) + scan.hint


def one_line(file: Path, error: Exception) -> str:
    """Return what is wrong with a file."""
    if isinstance(error, DataError):
        return str(error) if str(file) in str(error) else f"{file}: {error}"
    if isinstance(error, MemoryError):
        return f"{file}: needs more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        place = error.filename2 or error.filename
        return f"{file}: {error.strerror}{f' ({place})' if place else ''}"
    return f"{file}: {type(error).__name__}: {first_line(error)}"
