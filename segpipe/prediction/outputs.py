"""The files that a batch writes of each scan, and the table of all scans."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segpipe.data.prepare import mask_dtype
from segpipe.errors import ConfigError
from segpipe.files import write_table
from segpipe.io.volumes import write_mask, write_shares
from segpipe.plan import Plan
from segpipe.prediction.predictor import Prediction
from segpipe.prediction.records import STAGES, ScanRecord
from segpipe.prediction.scans import Scan


def output_paths(scan: Scan, save: Sequence[str]) -> dict[str, str]:
    """Return for each of `save` the path that is written of a scan, below the output."""
    paths = {}
    for kind in save:
        paths[kind] = scan.mask_name if kind == "mask" else f"{kind}/{scan.name}.nii.gz"
    return paths


def check_output_paths(scans: Sequence[Scan], save: Sequence[str], overlays: bool) -> None:
    """Check that no file is written over another, as a mask `entropy/x` over the entropy of `x`.

    Raises:
        ConfigError: if one would be.
    """
    counts: Counter[str] = Counter()
    for scan in scans:
        counts.update(output_paths(scan, save).values())
        if overlays:
            counts[ScanRecord(scan.name).picture] += 1
    for path, number in counts.items():
        if number > 1:
            raise ConfigError(
                f"save: two files would be written as {path}; "
                "give each folder of scans its own output"
            )


def write_outputs(
    prediction: Prediction, scan: Scan, plan: Plan, save: Sequence[str], folder: Path
) -> list[Path]:
    """Write the files of a prediction that `save` names, each atomically, and return their paths.

    Raises:
        DataError: if a file does not read back as it was written.
    """
    files = {kind: folder / path for kind, path in output_paths(scan, save).items()}
    source = scan.images[0]
    maps = prediction.maps
    if "mask" in files:
        write_mask(prediction.mask(plan), source, files["mask"], mask_dtype(plan.labels))
    if maps.probabilities is not None:
        names = list(plan.regions or plan.labels)
        write_shares(maps.probabilities, source, files["probabilities"], names)
    if maps.entropy is not None:
        write_shares(maps.entropy, source, files["entropy"])
    return list(files.values())


def measure_volumes(record: ScanRecord, prediction: Prediction, plan: Plan) -> None:
    """Add the volume of each label to the record of a scan, in voxels and mL."""
    record.labels = plan.label_names
    record.ids = list(plan.labels.values())[1:]
    # counted one by one, since `bincount` would make 8 bytes of every voxel
    for label in range(1, len(plan.labels)):
        record.voxels.append(int(np.count_nonzero(prediction.labels == label)))
    record.volumes_ml = [voxels * prediction.grid.voxel_ml for voxels in record.voxels]


def write_predictions(path: Path, records: Sequence[ScanRecord], names: Sequence[str]) -> None:
    """Write `predictions.csv`: per scan its status, seconds per stage, voxels and mL per label.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    header = ["case", "status", "reason", "note", "warnings"]
    header += [f"{stage}_seconds" for stage in STAGES]
    header += [f"{name} voxels" for name in names]
    header += [f"{name} mL" for name in names]
    write_table(path, header, list(map(_row, records)))


def _row(record: ScanRecord) -> list[object]:
    """Return the line of a scan in `predictions.csv`."""
    row: list[object] = [record.name, "failed" if record.failed else "done"]
    row += [record.reason, record.note, "; ".join(record.warnings)]
    for stage in STAGES:
        seconds = record.seconds.get(stage)
        row.append("" if seconds is None else f"{seconds:.3f}")
    row += record.voxels
    if record.unit == "mm":  # of pixels, the numbers of voxels are the areas
        row += map("{:.4f}".format, record.volumes_ml)
    return row
