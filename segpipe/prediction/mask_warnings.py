"""What a person should know of a mask that is done."""

from collections.abc import Collection, Sequence

from segpipe.axes import AXES
from segpipe.data.prepare import model_space
from segpipe.io.content import voxel_digest
from segpipe.plan import Plan
from segpipe.prediction.prediction import Prediction
from segpipe.prediction.records import ScanRecord
from segpipe.text import count

TOOK_PART = "took part in the training: how good its mask is says little of new scans"
SPACING_RATIO = 3.0  # to the training's spacing, from which a scan is worth a look


def warnings_for(
    prediction: Prediction, record: ScanRecord, plan: Plan, seen: Collection[str] = ()
) -> list[str]:
    """Return what a person should know of a mask that is done.

    It names how it was computed, where that was unusual, that the scan took part in the training,
    labels that were not found, a spacing far from that of training, and channels of one value.

    Args:
        prediction: the prediction of the scan.
        record: the record of the scan, with its volumes.
        plan: the plan of the network.
        seen: digests of the images that took part in its training.
    """
    warnings = [record.note] if record.note else []
    if seen and voxel_digest(prediction.scan.native.numpy()) in seen:
        warnings.append(TOOK_PART)
    volumes = zip(record.labels, record.voxels, strict=True)
    missing = [name for name, voxels in volumes if not voxels]
    if missing:
        warnings.append(f"finds no {', no '.join(missing)}")
    grid = prediction.grid
    turned = model_space(plan).orientation(grid)
    spacings = zip(
        turned.order, turned.along(grid.spacing_mm.tolist()), plan.spacing_mm, strict=True
    )
    for scan_axis, mm, model_mm in spacings:
        if model_mm is None or 1 / SPACING_RATIO <= mm / model_mm <= SPACING_RATIO:
            continue
        axis = AXES[grid.ras.order.index(scan_axis)]
        edges = f"voxels of {mm:.3g} mm {axis}, but the network sees {model_mm:.3g} mm"
        warnings.append(record.units.in_text(edges))
    for number, channel in enumerate(prediction.scan.native.as_tensor()):
        if channel.min() == channel.max():
            warnings.append(f"every voxel of channel {number} is {float(channel.flatten()[0]):g}")
    return warnings


def note_of_training_scans(records: Sequence[ScanRecord]) -> str:
    """Return how many scans took part in the training; empty where none did."""
    done = [record for record in records if not record.failed]
    known = sum(TOOK_PART in record.warnings for record in done)
    if not known:
        return ""
    return (
        f"{known} of {count(len(done), 'scan')} took part in the training: what their masks score "
        "says little of new scans."
    )
