"""Metrics of objects, such as lesions or nuclei: how many are found, and how well each."""

from segpipe.mask_pairs import MaskPair
from segpipe.metric_record import metric
from segpipe.registry import METRICS


@METRICS.register("object_f1", help="objects: F1 of their detection, matched by object_iou")
@metric(title="Object F1", usual=False, tested=True)
def object_f1(pair: MaskPair) -> float:
    """Return 2 TP / (2 TP + FP + FN) of objects, the recognition quality of Kirillov 2019."""
    found = pair.objects
    return 2 * len(found.iou) / (found.predicted + found.true)


@METRICS.register("object_precision", help="objects: share of the predicted ones that match")
@metric(title="Object precision", usual=False, summary=False)
def object_precision(pair: MaskPair) -> float:
    """Return the share of predicted objects that match a true one."""
    return len(pair.objects.iou) / pair.objects.predicted


@METRICS.register("object_recall", help="objects: share of the true ones that are found")
@metric(title="Object recall", usual=False)
def object_recall(pair: MaskPair) -> float:
    """Return the share of true objects that match a predicted one."""
    return len(pair.objects.iou) / pair.objects.true


@METRICS.register("object_dice", help="objects: mean Dice, 0 for missed and false ones")
@metric(title="Object Dice", usual=False, tested=True)
def object_dice(pair: MaskPair) -> float:
    """Return the mean Dice over all objects, 0 for those without a match (as BraTS 2023)."""
    found = pair.objects
    matched = len(found.iou)
    return float(found.dice.sum()) / (found.predicted + found.true - matched)


@METRICS.register("object_pq", help="objects: panoptic quality (Kirillov 2019)")
@metric(title="Panoptic quality", usual=False, summary=False)
def object_pq(pair: MaskPair) -> float:
    """Return the sum of the IoU of matched objects / (TP + FP / 2 + FN / 2)."""
    found = pair.objects
    return 2 * float(found.iou.sum()) / (found.predicted + found.true)


@METRICS.register("false_objects", help="objects: false ones in a scan, also in empty scans")
@metric(title="False objects", digits=2, unit="a scan", better="lower", usual=False, empty=True)
def false_objects(pair: MaskPair) -> float:
    """Return the number of predicted objects without a match; 0 where neither mask has any."""
    return float(pair.objects.predicted - len(pair.objects.iou))
