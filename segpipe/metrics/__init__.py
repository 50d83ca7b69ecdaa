"""Metrics of a predicted mask against the truth, and the scores of cases that hold their values.

A metric is a function of a `MaskPair` with a record of what tables need to know of it. It is
registered under its name, which is also its column in `validation.csv`, `scores.csv`, `study.csv`
and `report.json`. One of your own, in a file that `extensions=[FILE]` names:

    from segpipe.metrics import MaskPair, metric
    from segpipe.registry import METRICS

    @METRICS.register("recall", help="share of the truth that the prediction covers")
    @metric(title="Recall")
    def recall(pair: MaskPair) -> float:
        return pair.common_voxels / pair.true_voxels

Both masks that a metric is given hold the target. The other cases follow one policy: if neither
mask holds the target, every metric is NaN and the case is not counted. If only one holds it, the
case is a miss or a false alarm, and a metric has its worst value, `Metric.miss`: 0 for an overlap,
the diagonal of the field of view for a distance, so that a network which finds nothing never looks
better than one that finds something. (MONAI's HD95 of a miss is NaN, which its means leave out.)
Means are taken over the cases in which either mask holds the target, and then over the targets.
"""

from segpipe.mask_pairs import IGNORED as IGNORED
from segpipe.mask_pairs import MaskPair as MaskPair
from segpipe.mask_pairs import Targets as Targets
from segpipe.metric_record import Metric as Metric
from segpipe.metric_record import metric as metric
from segpipe.metrics.chosen import all_metrics as all_metrics
from segpipe.metrics.chosen import check_scoring as check_scoring
from segpipe.metrics.chosen import metrics_of as metrics_of
from segpipe.metrics.chosen import tolerance_text as tolerance_text
from segpipe.metrics.chosen import tolerances_mm as tolerances_mm
from segpipe.metrics.scores import Score as Score
from segpipe.metrics.scores import Summary as Summary
from segpipe.metrics.scores import dice_per_target as dice_per_target
from segpipe.metrics.scores import mean_dice as mean_dice
from segpipe.metrics.scores import mean_dice_of as mean_dice_of
from segpipe.metrics.scores import score_case as score_case
from segpipe.metrics.scores import score_columns as score_columns
from segpipe.metrics.scores import summarise as summarise
from segpipe.metrics.scores import write_scores as write_scores
from segpipe.registry import METRICS as METRICS
