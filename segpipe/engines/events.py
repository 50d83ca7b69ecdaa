"""What a worker tells of its scans."""

from collections.abc import Callable
from dataclasses import dataclass

from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.records import ScanRecord


@dataclass(frozen=True)
class Started:
    """The network begins with a scan.

    Attributes:
        name: the name of the scan.
    """

    name: str


@dataclass(frozen=True)
class Advanced:
    """A part of a scan is computed.

    Attributes:
        name: the name of the scan.
        done: number of its windows that are computed.
        total: number of its windows.
    """

    name: str
    done: int
    total: int


@dataclass(frozen=True)
class Settled:
    """A scan is done or has failed, and its record is stored.

    Attributes:
        record: the record of the scan.
        is_new: whether it was settled now, not by an earlier or another call.
        is_known: whether it fails as it did before.
        is_incomplete: whether a file is missing, or a score though it has a truth.
    """

    record: ScanRecord
    is_new: bool
    is_known: bool
    is_incomplete: bool

    @property
    def name(self) -> str:
        """Return the name of the scan."""
        return self.record.name


@dataclass(frozen=True)
class Claimed:
    """Another call has claimed a scan.

    Attributes:
        scan: the scan that it has claimed.
    """

    scan: Scan

    @property
    def name(self) -> str:
        """Return the name of the scan."""
        return self.scan.name


Event = Started | Advanced | Settled | Claimed
Tell = Callable[[Event], None]
