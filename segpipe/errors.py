"""Errors for people: one line each, printed without a traceback, each kind with an exit status."""


class SegpipeError(ValueError):
    """A mistake that the user can correct.

    Its text says where it is, what is wrong, what is allowed and what to do.
    """

    exit_status = 1


class ConfigError(SegpipeError):
    """A wrong key, value or path on the command line."""

    exit_status = 2


class NoScanError(ConfigError):
    """An input in which there is no scan, or none yet."""


class DataError(SegpipeError):
    """A file that is unreadable, inconsistent, or not what its dataset declares."""


class NotFiniteError(DataError):
    """A scan with voxels that are NaN or infinite, which an option would fill."""


class BatchInterruptedError(SegpipeError):
    """A batch that Ctrl-C has ended after the scan in hand."""

    exit_status = 130  # as shells have it


class DivergedError(SegpipeError):
    """A training whose loss became NaN or infinite."""
