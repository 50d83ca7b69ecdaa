"""The usual metrics: overlap of two masks, and distances between their surfaces."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from segpipe.mask_pairs import MaskPair
from segpipe.metric_record import metric
from segpipe.registry import METRICS


@METRICS.register("dice", help="Dice coefficient (Dice 1945)")
@metric(title="Dice", tested=True)
def dice(pair: MaskPair) -> float:
    """Return 2 |A n B| / (|A| + |B|)."""
    return 2 * pair.common_voxels / (pair.predicted_voxels + pair.true_voxels)


@METRICS.register("iou", help="intersection over union (Jaccard 1912)")
@metric(title="IoU", summary=False)  # not tested: it ranks cases as Dice does
def iou(pair: MaskPair) -> float:
    """Return |A n B| / |A u B|."""
    return pair.common_voxels / (pair.predicted_voxels + pair.true_voxels - pair.common_voxels)


@METRICS.register("hd95_mm", help="95th percentile Hausdorff distance (Huttenlocher 1993)")
@metric(title="HD95", unit="mm", digits=2, better="lower", miss="diagonal")
def hd95_mm(pair: MaskPair) -> float:
    """Return the larger of the two directed 95th percentiles of surface distances, mm.

    A study does not test it: a miss has a value by convention, which is too coarse for ranks.
    """
    # MONAI takes longer to import than a small scan to segment, and only scoring needs it
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    spacing = pair.spacing_mm.tolist()
    with _without_monai_warning():
        distance = compute_hausdorff_distance(*pair.one_hot, percentile=95, spacing=spacing)
    return float(distance)


@METRICS.register("assd_mm", help="average symmetric surface distance")
@metric(
    title="ASSD", unit="mm", digits=2, better="lower", miss="diagonal", summary=False, study=False
)
def assd_mm(pair: MaskPair) -> float:
    """Return the mean distance between the surfaces, in both directions, mm."""
    from monai.metrics.surface_distance import compute_average_surface_distance

    spacing = pair.spacing_mm.tolist()
    with _without_monai_warning():
        distance = compute_average_surface_distance(*pair.one_hot, symmetric=True, spacing=spacing)
    return float(distance)


@METRICS.register("nsd", help="normalised surface Dice within nsd_tolerance_mm (Nikolov 2018)")
@metric(title="NSD", tested=True)
def nsd(pair: MaskPair) -> float:
    """Return the share of both surfaces that lies within the tolerance of the other surface."""
    from monai.metrics.surface_dice import compute_surface_dice

    tolerance = [pair.tolerance_mm]
    spacing = pair.spacing_mm.tolist()
    with _without_monai_warning():
        share = compute_surface_dice(*pair.one_hot, tolerance, spacing=spacing, use_subvoxels=True)
    return float(share)


@contextmanager
def _without_monai_warning() -> Iterator[None]:
    """Hide a deprecation warning that MONAI gives of its own call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        yield
