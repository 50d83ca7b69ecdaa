"""The prediction of one scan: labels, probabilities, and what was unusual."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Integer

from segpipe.data.prepare import PreparedScan, to_label
from segpipe.geometry import Grid
from segpipe.plan import Plan
from segpipe.prediction.confidence import Confidence
from segpipe.prediction.maps import Maps
from segpipe.regions import painted_ids


@dataclass(frozen=True)
class Prediction:
    """The prediction of one scan.

    Attributes:
        labels: indices of labels (0, 1, 2 ...) on the scan's own grid, shape `(x, y, z)`, uint8.
        scan: the scan as the network saw it.
        maps: probabilities and entropy, where they were requested.
        seconds: wall time of each stage.
        note: what was unusual in how it was computed; empty otherwise.
        skipped: number of windows of air that were not computed.
        confidence: how sure the network is of each target, where it was measured.
    """

    labels: Integer[np.ndarray, "x y z"]
    scan: PreparedScan
    maps: Maps
    seconds: dict[str, float] = field(default_factory=dict)
    note: str = ""
    skipped: int = 0
    confidence: Confidence | None = None

    @property
    def grid(self) -> Grid:
        """Return the scanner's grid."""
        return self.scan.grid

    def mask(self, plan: Plan) -> Integer[np.ndarray, "x y z"]:
        """Return the labels as ids of the dataset, in the integer type of all the plan's masks."""
        return to_label(self.labels, plan.labels)


def region_ids(plan: Plan) -> list[int] | None:
    """Return the label that each region paints; None where labels exclude one another."""
    if plan.regions is None:
        return None
    return painted_ids(plan.regions, plan.paint)
