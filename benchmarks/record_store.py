"""The records of very many scans alone: CPU and memory to write them, to open them, and to make the tables.

python benchmarks/record_store.py                    # 1,000 and 10,000 scans
python benchmarks/record_store.py --scans 100000
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segpipe.files import write_lines
from segpipe.prediction.outputs import write_predictions
from segpipe.prediction.record_store import MANIFEST, RecordStore, rows_of
from segpipe.prediction.records import STAGES, ScanRecord


def main() -> None:
    """Print a line for each number of scans."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, nargs="+", default=[1_000, 10_000])
    print("  scans  ms of CPU a scan: write   open  manifest and table  KiB of memory a record")
    for scans in parser.parse_args().scans:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), scans)


def measure(folder: Path, scans: int) -> None:
    """Print what the records of a number of scans take."""
    store = RecordStore(folder)
    times = [time.process_time()]
    for number in range(scans):
        store.write(record_of(f"scan_{number:06d}"))
    times.append(time.process_time())
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    opened = RecordStore(folder)
    times.append(time.process_time())
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    write_lines(folder / MANIFEST, rows_of(opened.records))
    write_predictions(folder / "predictions.csv", list(opened.records.values()))
    times.append(time.process_time())
    write, read, tables = [(times[step + 1] - times[step]) / scans * 1000 for step in range(3)]
    print(
        f"{scans:7d}  {write:23.3f}  {read:5.3f}  {tables:18.3f}  {grown_kib / scans:22.1f}",
        flush=True,
    )


def record_of(name: str) -> ScanRecord:
    """Return the record of a scan that is done."""
    return ScanRecord(
        name,
        seconds=dict.fromkeys(STAGES, 0.1),
        volumes_ml=[1.0],
        voxels=[1000],
        made_from="a" * 32,
        files={f"{name}.nii.gz": "b" * 32},
        images=[f"/data/in/{name}.nii"],
        labels=["organ"],
        ids=[1],
    )


if __name__ == "__main__":
    main()
