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
from segpipe.prediction.dicom_outputs import DICOM_FILES, DicomDetails, write_dicom
from segpipe.prediction.merged import MergedPredictor
from segpipe.prediction.predictor import Prediction, Predictor
from segpipe.prediction.quality_measures import measure_quality
from segpipe.prediction.records import STAGES, ScanRecord, label_names
from segpipe.prediction.scans import Scan
from segpipe.prediction.timing import timed
from segpipe.quality import predict_quality


def output_paths(scan: Scan, save: Sequence[str]) -> dict[str, str]:
    """Return for each of `save` the path that is written of a scan, below the output."""
    paths = {}
    for kind in save:
        ending = ".dcm" if kind in DICOM_FILES else ".nii.gz"
        paths[kind] = scan.mask_name if kind == "mask" else f"{kind}/{scan.name}{ending}"
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
    prediction: Prediction,
    scan: Scan,
    plan: Plan,
    save: Sequence[str],
    folder: Path,
    dicom: DicomDetails | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Write the files of a prediction that `save` names, each atomically.

    Where a scan does not allow a DICOM file, its mask is written in any case.

    Returns:
        The digest of each file, by its path below the folder; and why DICOM files were not written,
        each in a line.

    Raises:
        DataError: if a file does not read back as it was written.
    """
    paths = output_paths(scan, save)
    source = scan.images[0]
    maps = prediction.maps
    digests = {}
    problems: list[str] = []
    mask = prediction.mask(plan)
    if dicom is not None:
        kinds = [kind for kind in DICOM_FILES if kind in paths]
        targets = {kind: folder / paths[kind] for kind in kinds}
        written, problems = write_dicom(mask, plan, scan, targets, dicom)
        for kind, content in zip(kinds, written, strict=True):
            if content:
                digests[paths[kind]] = content
    if "mask" in paths or problems:
        path = scan.mask_name
        digests[path] = write_mask(mask, source, folder / path, mask_dtype(plan.labels))
    if "probabilities" in paths and maps.probabilities is not None:
        names = list(plan.regions or plan.labels)
        path = paths["probabilities"]
        digests[path] = write_shares(maps.probabilities, source, folder / path, names)
    if "entropy" in paths and maps.entropy is not None:
        path = paths["entropy"]
        digests[path] = write_shares(maps.entropy, source, folder / path)
    return digests, problems


def measure_volumes(record: ScanRecord, prediction: Prediction, plan: Plan) -> None:
    """Add the volume of each label to the record of a scan, in voxels and mL."""
    record.labels = plan.label_names
    record.ids = list(plan.labels.values())[1:]
    # counted one by one, since `bincount` would make 8 bytes of every voxel
    for label in range(1, len(plan.labels)):
        record.voxels.append(int(np.count_nonzero(prediction.labels == label)))
    record.volumes_ml = [voxels * prediction.grid.voxel_ml for voxels in record.voxels]


def add_quality(
    record: ScanRecord, prediction: Prediction, predictor: Predictor | MergedPredictor
) -> None:
    """Add the predicted quality of a mask to its record, where the network can tell."""
    if not predictor.quality:
        return
    with timed(record.seconds, "quality"):
        measured = measure_quality(prediction, predictor.plan)
        found = predict_quality(predictor.quality, measured, record.units)
    if found is not None:
        record.quality = found.dice
        record.quality_reason = found.reason


def quality_rank(record: ScanRecord) -> float:
    """Return by what scans are sorted: the predicted quality, above 1 where there is none."""
    return 2.0 if record.quality is None else record.quality


def write_predictions(path: Path, records: Sequence[ScanRecord]) -> None:
    """Write `predictions.csv`: per scan its status, seconds per stage, voxels and mL per label.

    Scans that failed are first, then those whose masks have the lowest predicted quality.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    names = label_names(records)
    header = ["case", "status", "reason", "note", "warnings", "quality", "quality_reason"]
    header += [f"{stage}_seconds" for stage in STAGES]
    header += [f"{name} voxels" for name in names]
    header += [f"{name} mL" for name in names]
    ordered = sorted(records, key=lambda record: (not record.failed, quality_rank(record)))
    rows = [_row(record, names) for record in ordered]
    write_table(path, header, rows)


def _row(record: ScanRecord, names: Sequence[str]) -> list[object]:
    """Return the line of a scan in `predictions.csv`."""
    row: list[object] = [record.name, "failed" if record.failed else "done"]
    row += [record.reason, record.note, "; ".join(record.warnings)]
    row.append("" if record.quality is None else f"{record.quality:.4f}")
    row.append(record.quality_reason)
    for stage in STAGES:
        seconds = record.seconds.get(stage)
        row.append("" if seconds is None else f"{seconds:.3f}")
    voxels = dict(zip(record.labels, record.voxels, strict=True))
    row += [voxels.get(name, "") for name in names]
    volumes = {}
    if record.unit == "mm":  # of pixels, the numbers of voxels are the areas
        volumes = dict(zip(record.labels, record.volumes_ml, strict=True))
    row += [f"{volumes[name]:.4f}" if name in volumes else "" for name in names]
    return row
