"""Which metrics suit each label, from its size and form, after Metrics Reloaded (Maier-Hein 2024).

https://doi.org/10.1038/s41592-023-02151-z
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.data.ceiling import FACTORS, ceilings
from segpipe.data.inspected_case import InspectedCase
from segpipe.text import count

MANY = 5  # separate parts in a case, from which they are objects to be counted
THIN = 5.0  # times what a ball of the same volume loses on voxels four times as wide
LOST = 0.08  # of Dice on voxels four times as wide, from which a label may be thin
SMALL = 4.0  # voxels of the radius of a ball, up to which half a voxel costs 15 % of the Dice
LARGEST_BALL = 24  # voxels of the radius; what larger ones lose is in proportion to 1 / radius
OFTEN = 0.9  # share of the cases, below which a label is often absent


@dataclass(frozen=True)
class Advice:
    """The metrics that suit one label.

    Attributes:
        label: its name.
        reason: what it is like, with the metrics that this asks for.
        metrics: names of those beside the usual ones.
    """

    label: str
    reason: str
    metrics: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.label}: {self.reason}"


def advise(cases: Sequence[InspectedCase], labels: Mapping[str, int]) -> list[Advice]:
    """Return the advice for each label but the background that a case has.

    Args:
        cases: the cases that were inspected.
        labels: name -> id on disk.
    """
    readable = [case for case in cases if case.grid is not None]
    found: list[Advice] = []
    for name, number in labels.items():
        rows: list[np.ndarray] = []
        lost: list[float] = []
        for case in readable:
            for row, fine in zip(case.sizes, case.ceilings, strict=True):
                if row[0] == number:
                    rows.append(row)
                    lost.append(1 - float(fine[FACTORS.index(4)]))
        if number and rows:
            flat = all(min(case.grid.shape) == 1 for case in readable if case.grid is not None)
            absent = len(readable) - len(rows)
            found.append(_advice(name, np.array(rows), float(np.mean(lost)), absent, flat))
    return found


def _advice(name: str, rows: np.ndarray, lost: float, absent: int, flat: bool) -> Advice:
    """Return the advice for a label.

    Args:
        name: the name of the label.
        rows: the rows of the label, as in `InspectedCase.sizes`.
        lost: Dice that a perfect network loses on voxels four times as wide.
        absent: cases without the label.
        flat: whether the cases are images.
    """
    parts, largest = np.median(rows[:, 2:], axis=0).tolist()
    reasons: list[str] = []
    metrics: list[str] = []
    if parts >= MANY:
        reasons.append(f"{parts:.0f} objects a case: object_f1, object_dice")
        metrics += ["object_f1", "object_dice"]
    radius = float(np.sqrt(largest / np.pi) if flat else np.cbrt(0.75 * largest / np.pi))
    if lost >= LOST and lost >= THIN * _lost_of_ball(radius, flat):
        reasons.append("thin, so that a gap hardly changes Dice: cldice")
        metrics.append("cldice")
    elif radius <= SMALL:
        reasons.append(
            f"small ({largest:.0f} voxels), so that a voxel at its edge costs much Dice: nsd with "
            "a tolerance that readers agree on (nsd_tolerance_mm)"
        )
    if absent > (1 - OFTEN) * (absent + len(rows)):
        missing = count(absent, "case")
        reasons.append(f"absent in {missing}: false_objects counts false alarms there")
        metrics.append("false_objects")
    return Advice(name, "; ".join(reasons) or "compact: the usual metrics suit it", tuple(metrics))


def _lost_of_ball(radius: float, flat: bool) -> float:
    """Return the Dice that a ball of this radius, or a disc, loses on voxels four times as wide."""
    scale = min(1.0, LARGEST_BALL / radius)
    radius = min(radius, LARGEST_BALL)
    reach = int(np.ceil(radius)) + 1
    axes = (reach, reach, 0 if flat else reach)
    x, y, z = np.ogrid[tuple(slice(-size, size + 1) for size in axes)]
    ball = x**2 + y**2 + z**2 <= radius**2
    return scale * (1 - float(ceilings(ball, (1.0, 1.0, 1.0))[FACTORS.index(4)]))
