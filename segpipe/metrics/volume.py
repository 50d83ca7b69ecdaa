"""Metrics of volumes."""

from segpipe.mask_pairs import MaskPair
from segpipe.metric_record import metric
from segpipe.registry import METRICS


@METRICS.register("volume_error", help="difference of the volumes, as a share of the true one")
@metric(title="Volume error", digits=1, unit="%", better="lower", miss=100.0, usual=False)
def volume_error(pair: MaskPair) -> float:
    """Return |V - W| / W of the predicted volume V and the true volume W, per cent.

    A miss has 100 %, and so has a false alarm, for which there is no true volume.
    """
    return 100 * abs(pair.predicted_voxels - pair.true_voxels) / pair.true_voxels
