"""What a batch writes of each scan, and the table of all."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segpipe.data.prepare import mask_dtype
from segpipe.errors import ConfigError
from segpipe.files import write_table
from segpipe.io.volumes import write_mask, write_shares
from segpipe.plan import Plan
from segpipe.prediction.predictor import Prediction
from segpipe.prediction.records import ScanRecord
from segpipe.prediction.scans import Scan

STAGES = ("read", "network", "resample", "write")


def targets(scan: Scan, save: Sequence[str]) -> dict[str, str]:
    """What is written of a scan: for each of `save` a path below the output."""
    return {
        what: scan.mask_name if what == "mask" else f"{what}/{scan.name}.nii.gz" for what in save
    }


def picture(scan: Scan) -> str:
    """The path of a scan's picture below the output."""
    return f"overlays/{scan.name}.png"


def check_targets(scans: Sequence[Scan], save: Sequence[str], overlays: bool) -> None:
    """Lets no file be written over another, as the mask of a scan `entropy/x` over the entropy of `x`.

    Raises:
        ConfigError: if one would be.
    """
    files = [
        file
        for scan in scans
        for file in [*targets(scan, save).values(), *([picture(scan)] if overlays else [])]
    ]
    if twice := [file for file, count in Counter(files).items() if count > 1]:
        raise ConfigError(
            f"save: two files would be written as {twice[0]}; give each folder of scans its own output"
        )


def write_outputs(
    prediction: Prediction, scan: Scan, plan: Plan, save: Sequence[str], folder: Path
) -> list[Path]:
    """Writes what is asked for of a prediction, each file whole or not at all.

    Raises:
        DataError: if a file does not read back as it was written.
    """
    files = {what: folder / name for what, name in targets(scan, save).items()}
    source, maps = scan.images[0], prediction.maps
    if "mask" in files:
        write_mask(prediction.mask(plan), source, files["mask"], mask_dtype(plan.labels))
    if maps.probabilities is not None:
        write_shares(
            maps.probabilities, source, files["probabilities"], list(plan.regions or plan.labels)
        )
    if maps.entropy is not None:
        write_shares(maps.entropy, source, files["entropy"])
    return list(files.values())


def write_predictions(path: Path, outcomes: Sequence[ScanRecord], names: Sequence[str]) -> None:
    """Writes `predictions.csv`: per scan its status, the seconds of each stage, and voxels and mL per label."""
    seconds = [f"{stage}_seconds" for stage in STAGES]
    volumes_of = [f"{name} {unit}" for unit in ("voxels", "mL") for name in names]
    rows = []
    for one in outcomes:
        spent = [f"{one.seconds[stage]:.3f}" if stage in one.seconds else "" for stage in STAGES]
        volumes = [f"{volume:.4f}" for volume in one.volumes_ml]
        status = "failed" if one.reason else "done"
        rows.append([one.name, status, one.reason, one.note, *spent, *one.voxels, *volumes])
    write_table(path, ["case", "status", "reason", "note", *seconds, *volumes_of], rows)
