"""This machine and the processes on it."""

import errno
import hashlib
import os
import socket
import sys

HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]  # in names of files


def is_running(process: int) -> bool:
    """Return whether a process of this number runs on this machine, or may run."""
    if sys.platform == "win32":  # where asking would end the process
        return True
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno != errno.ESRCH  # another error: it belongs to another user
    return True
