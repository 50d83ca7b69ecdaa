"""Errors that are for people: one line each, printed without a traceback, with an exit status of their own."""


class SegpipeError(ValueError):
    """A mistake that the user can mend; its text says where, what it is, what it must be and what to do."""

    exit_status = 1


class ConfigError(SegpipeError):
    """A wrong key, value or path in what the user typed."""

    exit_status = 2


class DataError(SegpipeError):
    """A file that cannot be used: unreadable, inconsistent, or not what its dataset declares."""


class DivergedError(SegpipeError):
    """A training whose loss is no number any more."""
