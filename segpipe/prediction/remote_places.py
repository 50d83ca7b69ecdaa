"""Input and output that are addresses, with what stands for them on this machine meanwhile."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from segpipe.config.predict import Predict
from segpipe.download_cache import DownloadCache
from segpipe.errors import ConfigError, DataError, SegpipeError
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.places import Places
from segpipe.prediction.records import ScanRecord
from segpipe.prediction.remote_input import RemoteInput
from segpipe.prediction.remote_output import RemoteOutput
from segpipe.remote import full, is_address

log = logging.getLogger("segpipe")


class RemotePlaces(Places):
    """The remote input and output of a call; one of them may be a folder of this machine.

    Attributes:
        input: the remote input; None where it is on this machine.
        output: the remote output; None where it is on this machine.
    """

    def __init__(self, options: Predict, folder: Path, stack: ExitStack) -> None:
        """Copy the records of a remote output here, and make the outline of a remote input.

        Raises:
            ConfigError: if an address cannot be used.
            DataError: if a server cannot be asked.
        """
        self.input: RemoteInput | None = None
        self.output: RemoteOutput | None = None
        output = full(options.output).rstrip("/") if is_address(options.output) else ""
        if options.input is not None and is_address(options.input):
            where = options.remote.cache or folder / "cache"
            cache = DownloadCache(where, options.remote.cache_gib)
            stack.callback(cache.close)
            address = full(options.input)
            self.input = RemoteInput(address, folder / "input", cache, options.recursive, output)
        if output:
            self.output = RemoteOutput(output, folder / "output")

    def local(self, options: Predict) -> Predict:
        """Return the options with folders of this machine in place of addresses."""
        changed: dict[str, object] = {}
        if self.input is not None:
            changed["input"] = self.input.given
        if self.output is not None:
            changed["output"] = self.output.folder
        return options.model_copy(update=changed)

    def check(self, scans: Sequence[Scan]) -> None:
        """Check that scans can be used where they are.

        Raises:
            ConfigError: otherwise.
        """
        if self.input is not None:
            self.input.check(scans)

    def identity(self, scan: Scan) -> tuple[list[Path], list[Any]]:
        """Return the files and the plain values that change with the content of a scan.

        Raises:
            DataError: if they cannot be had.
        """
        return super().identity(scan) if self.input is None else self.input.identity(scan)

    def opened(self, scan: Scan) -> Scan:
        """Return a scan with copies of its files, until `settle`.

        Raises:
            DataError: if one cannot be had.
        """
        return scan if self.input is None else self.input.opened(scan)

    def has(self, folder: Path, name: str) -> bool:
        """Return whether a file is there, below the folder of the masks."""
        return super().has(folder, name) if self.output is None else self.output.has(name)

    def is_there(self, folder: Path, name: str, content: str) -> bool:
        """Return whether a file of an earlier call is there; of a remote one its name decides."""
        if self.output is None:
            return super().is_there(folder, name, content)
        return self.output.has(name)

    def keep_files(self, record: ScanRecord) -> None:
        """Copy the files of a scan into a remote output.

        Raises:
            RemoteError: if one cannot be sent.
        """
        if self.output is not None:
            self.output.send(record.files)
            if record.drawn:
                self.output.send_picture(record.picture)

    def settle(self, record: ScanRecord) -> None:
        """Let a record name addresses, and give up the copies of its scan."""
        record.reason = self.shown(record.reason)
        record.note = self.shown(record.note)
        record.warnings = [*map(self.shown, record.warnings)]
        record.images = [*map(self.shown, record.images)]
        if self.input is not None:
            self.input.release(record.name)

    def keep_record(self, file: Path) -> None:
        """Copy the record of a scan into a remote output.

        Raises:
            RemoteError: if it cannot be sent.
        """
        if self.output is not None:
            self.output.send_record(file)

    def named(self, options: Predict) -> Predict:
        """Return the options as a page shows them, with the address of the input."""
        if self.input is None:
            return options
        return options.model_copy(update={"input": self.shown(options.input)})

    def shown(self, path: object) -> str:
        """Return a text with addresses in place of what stands for them on this machine."""
        text = str(path)
        for place in (self.input, self.output):
            if place is not None:
                text = place.shown(text)
        return text


@contextmanager
def at_hand(options: Predict) -> Iterator[tuple[Predict, Places]]:
    """Give options without addresses, and the places that these stand for.

    What belongs to no scan, such as tables and page, is sent to a remote output at the end.

    Raises:
        ConfigError: if an address cannot be used, or an option is not possible with it.
        DataError: if a server cannot be asked.
    """
    if not is_address(options.input) and not is_address(options.output):
        yield options, Places()
        return
    _check(options)
    with tempfile.TemporaryDirectory(prefix="segpipe-") as temporary, ExitStack() as stack:
        places = RemotePlaces(options, Path(temporary).resolve(), stack)
        stack.enter_context(_naming(places))
        try:
            yield places.local(options), places
        except ConfigError:
            raise
        except BaseException:
            try:
                _finish(places)
            except DataError as error:  # what has ended the call matters more
                log.warning("%s", error)
            raise
        _finish(places)


def _finish(places: RemotePlaces) -> None:
    if places.output is not None:
        places.output.finish()


def _check(options: Predict) -> None:
    """Check that options go with an address.

    Raises:
        ConfigError: otherwise.
    """
    if options.claim and is_address(options.output):
        raise ConfigError(
            "claim=true: a remote output has no claims; shard=I/N shares the scans without them"
        )
    if options.workers != 1 or options.engine != "local":
        raise ConfigError(
            "workers, engine: with an address one process does the work; shard=I/N shares the "
            "scans among several calls"
        )
    if options.watch is not None:
        raise ConfigError("watch: looks into folders of this machine, not at an address")
    if options.page.viewer:
        raise ConfigError(
            "page.viewer=true: the volumes of a remote input or output are not at hand"
        )


@contextmanager
def _naming(places: RemotePlaces) -> Iterator[None]:
    """Let the log and errors show addresses in place of what stands for them on this machine."""

    def rename(record: logging.LogRecord) -> bool:
        record.msg = places.shown(record.getMessage())
        record.args = ()
        return True

    log.addFilter(rename)
    try:
        yield
    except SegpipeError as error:
        raise type(error)(places.shown(str(error))) from None
    finally:
        log.removeFilter(rename)
