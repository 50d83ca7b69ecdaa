"""Metrics of volumes."""

import numpy as np

from segpipe.mask_pairs import MaskPair
from segpipe.metric_record import metric
from segpipe.registry import METRICS

FAR = 10  # times nsd_tolerance_mm: what lies further from the truth is no matter of its border


@METRICS.register("volume_error", help="difference of the volumes, as a share of the true one")
@metric(title="Volume error", digits=1, unit="%", better="lower", miss=100.0, usual=False)
def volume_error(pair: MaskPair) -> float:
    """Return |V - W| / W of the predicted volume V and the true volume W, per cent.

    A miss has 100 %, and so has a false alarm, for which there is no true volume.
    """
    return 100 * abs(pair.predicted_voxels - pair.true_voxels) / pair.true_voxels


@METRICS.register(
    "stray_volume",
    help="share of the prediction that lies further from the truth than 10 times nsd_tolerance_mm",
)
@metric(title="Stray volume", digits=1, unit="%", better="lower", usual=False, empty=True)
def stray_volume(pair: MaskPair) -> float:
    """Return the share of the predicted volume that is far from the true one, per cent.

    It tells a mask that has the right place and a poor border from one that is elsewhere too. A
    miss has 0 %, since nothing of it strays, and a false alarm 100 %.
    """
    # takes long to import, and only scoring needs it
    from scipy.ndimage import distance_transform_edt

    if not pair.predicted_voxels:
        return 0.0
    if not pair.true_voxels:
        return 100.0
    distance_mm = distance_transform_edt(~pair.truth, sampling=pair.spacing_mm)
    is_far = np.asarray(distance_mm) > FAR * pair.tolerance_mm
    return 100 * np.count_nonzero(is_far & pair.prediction) / pair.predicted_voxels
