"""Tables and page of a folder of predictions, whoever has filled it."""

import logging
from pathlib import Path

from segpipe.config.predict import Predict
from segpipe.errors import ConfigError
from segpipe.prediction.calls import Calls
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.places import Places
from segpipe.prediction.record_store import RecordStore
from segpipe.prediction.records import ScanRecord
from segpipe.prediction.scans import find_scans, in_shard
from segpipe.reporting.prediction_summary import show_views
from segpipe.reporting.prediction_views import Views
from segpipe.text import count

log = logging.getLogger("segpipe")
INCOMPLETE = 3
LOCAL = Places()
NAMED = 8  # scans that a line names at most


def collect(options: Predict, places: Places = LOCAL) -> int:
    """Write the tables and the page of the records in `output`, and say what is missing.

    Args:
        options: the options of the call, whose input and output are on this machine.
        places: for which they stand.

    Returns:
        The exit status: 3 when a mask that was written is gone, or a scan of the input, where that
        is given, has no record; else 0.

    Raises:
        ConfigError: if there is nothing to collect, or the input cannot be used.
        DataError: if a file cannot be written.
    """
    assert options.output is not None
    output = options.output
    store = RecordStore(output)
    if not store.records:
        raise ConfigError(f"output={output}: holds no records of predictions")
    scans = _requested(options, store)
    calls = Calls(output)
    with calls.joined():
        Views(output, store, calls, places.named(options), len(scans)).finish()
    records = store.records.values()
    failed = sum(record.failed for record in records)
    log.info("%s: %d done, %d failed", output, len(records) - failed, failed)
    missing = [scan.name for scan in scans if scan.name not in store.records]
    gone = [record.name for record in records if _is_gone(output, record, places)]
    _name("not done yet", missing)
    _name("their masks are gone", gone)
    show_views(places.shown(output))
    return INCOMPLETE if missing or gone else 0


def _requested(options: Predict, store: RecordStore) -> list[Scan]:
    """Return the scans of the input; none where it is not given."""
    if options.input is None:
        return []
    assert options.output is not None
    channels = max(len(record.images) for record in store.records.values())
    scans = find_scans(options.input, options.output, channels, options.recursive, options.columns)
    return in_shard(scans, options.shard)


def _is_gone(output: Path, record: ScanRecord, places: Places) -> bool:
    """Return whether a mask or another file of a scan that is done is no longer there."""
    if record.failed:
        return False
    return not all(places.has(output, name) for name in record.files)


def _name(what: str, names: list[str]) -> None:
    """Say of how many scans something holds, with the first of their names."""
    if names:
        more = " ..." if names[NAMED:] else ""
        shown = ", ".join(sorted(names)[:NAMED])
        log.warning("%s: %s: %s%s", count(len(names), "scan"), what, shown, more)
