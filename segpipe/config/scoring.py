"""The options by which masks are scored, shared by every command that scores."""

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveFloat

from segpipe.config.section import OneOf, Section, Unit, Was
from segpipe.registry import METRICS

USUAL_METRICS = "usual"  # stands for all metrics that are measured where none is named
_check_name = OneOf(METRICS)._check


def _metric_name(name: str) -> str:
    return name if name == USUAL_METRICS else _check_name(name)


MetricName = Annotated[str, AfterValidator(_metric_name)]
Tolerance = PositiveFloat | dict[str, PositiveFloat]


class Scoring(Section):
    """Which metrics are measured, and how."""

    metrics: Annotated[list[MetricName] | None, Was(None)] = Field(
        min_length=1,
        description="metrics to measure, as [usual,object_f1,cldice]; usual = those of null: "
        "dice, iou, hd95_mm, assd_mm, nsd and those of extensions; dice is always measured",
    )
    nsd_tolerance_mm: Annotated[Tolerance, Unit("mm"), Was(1.0)] = Field(
        description="nsd: distance up to which two surfaces count as equal: one number for all "
        "labels or regions, or {label: number}, 1 for those that are not named",
    )
    object_iou: Annotated[float, Was(0.1)] = Field(
        gt=0,
        le=1,
        description="object_*: least overlap (IoU) of a predicted and a true object that match; "
        "0.5 = as panoptic quality has it",
    )


USUAL = Scoring(metrics=None, nsd_tolerance_mm=1.0, object_iou=0.1)  # of calls without a config
USUAL_TOLERANCE_MM = 1.0  # of labels that are not named
