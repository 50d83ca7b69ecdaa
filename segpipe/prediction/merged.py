"""Networks with labels of their own, such as those of TotalSegmentator, as one predictor."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from segpipe.data.prepare import PreparedScan, prepare_volume
from segpipe.errors import ConfigError
from segpipe.geometry import Grid
from segpipe.plan import Plan
from segpipe.postprocess import PostProcess
from segpipe.prediction.inference_plan import InferencePlan
from segpipe.prediction.postprocessing import cleaning_arguments, label_indices
from segpipe.prediction.prediction import Prediction
from segpipe.prediction.predictor import Predictor
from segpipe.prediction.timing import ProgressCallback
from segpipe.quality import QualityModel

MOST_LABELS = 255  # with the background; masks in memory are uint8


class MergedPredictor:
    """Segments scans with several networks, one after the other, into one mask.

    A label of the same name is the same label. Where two networks find a label at a voxel, the
    later one paints it.

    Args:
        parts: the predictors by name, in the order in which they paint.
        plan: the plan of the first, with the labels of all.
        postprocess: the post-processing of the merged masks.

    Raises:
        ConfigError: if the networks see different numbers of channels, or `postprocess` names what
            is no label.
    """

    quality: Sequence[QualityModel] = ()

    def __init__(
        self, parts: Mapping[str, Predictor], plan: Plan, postprocess: PostProcess
    ) -> None:
        self.parts = parts
        self.plan = plan
        self.postprocess = postprocess
        cleaning_arguments(postprocess, plan.labels)  # raises for a name that is no label
        first = next(iter(parts.values()))
        self.seen = frozenset().union(*(part.seen for part in parts.values()))
        self.device = first.device
        self.number_format = first.number_format
        for name, part in parts.items():
            if len(part.plan.channels) != len(plan.channels):
                raise ConfigError(
                    f"checkpoint: {name} sees {len(part.plan.channels)} channels, but "
                    f"{next(iter(parts))} {len(plan.channels)}; they are to predict the same scans"
                )

    def fallbacks_for(self, grid: Grid) -> list[InferencePlan]:
        """Return the ways in which the first network can compute a scan of this grid.

        Raises:
            DataError: if the memory does not suffice for one of the networks.
        """
        found = [part.fallbacks_for(grid) for part in self.parts.values()]
        return found[0]

    def entrance(self, grid: Grid) -> torch.device:
        """Return the device on which scans of this grid enter the first network's model space."""
        return next(iter(self.parts.values())).entrance(grid)

    def segment(self, scan: PreparedScan, progress: ProgressCallback | None = None) -> Prediction:
        """Return the merged prediction of a scan that was prepared with the first network's plan.

        Args:
            scan: the prepared scan.
            progress: is called after each batch of windows.

        Raises:
            DataError: if a network cannot use the scan, or the memory does not suffice.
        """
        labels = np.zeros(scan.grid.shape, dtype=np.uint8)
        seconds: dict[str, float] = {}
        notes: list[str] = []
        skipped = 0
        prediction = None
        for number, part in enumerate(self.parts.values()):
            prepared = scan
            if number > 0:
                entrance = part.entrance(scan.grid)
                prepared = prepare_volume(scan.native, part.plan, device=entrance)
            told = progress and _share_of(progress, number, len(self.parts))
            prediction = part.segment(prepared, told)
            self._paint(labels, prediction.labels, part.plan)
            for stage, spent in prediction.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
            notes.append(prediction.note)
            skipped += prediction.skipped
        assert prediction is not None
        note = "; ".join(filter(None, notes))
        return replace(
            prediction, labels=labels, scan=scan, seconds=seconds, note=note, skipped=skipped
        )

    def _paint(self, labels: np.ndarray, found: np.ndarray, plan: Plan) -> None:
        """Paint what a network has found over the merged labels, in place."""
        order = list(self.plan.labels)
        indices = [order.index(name) for name in list(plan.labels)[1:]]
        merged = np.array([0, *indices], dtype=np.uint8)
        is_found = found > 0
        labels[is_found] = merged[found[is_found]]


def merged_labels(plans: Sequence[Plan]) -> dict[str, int]:
    """Return the labels of several networks, numbered in their order, with the background.

    Raises:
        ConfigError: if they are too many for one mask.
    """
    background = next(iter(plans[0].labels))
    names: dict[str, None] = {background: None}
    for plan in plans:
        names |= dict.fromkeys(plan.label_names)
    if len(names) > MOST_LABELS:
        raise ConfigError(
            f"checkpoint: the networks have {len(names) - 1} labels together; a mask holds "
            f"{MOST_LABELS - 1} at most"
        )
    return {name: number for number, name in enumerate(names)}


def with_label_ids(plan: Plan, given: Mapping[str, int]) -> Plan:
    """Return a plan whose masks show these ids of labels; the other labels keep theirs.

    Raises:
        ConfigError: for a name that is no label, or two labels of one id.
    """
    label_indices(list(given), plan.labels, "label_ids")
    labels = plan.labels | dict(given)
    owners: dict[int, str] = {}
    for name, number in labels.items():
        if number in owners:
            raise ConfigError(
                f"label_ids: {name} and {owners[number]} would both be {number} in the masks; "
                "give each an id of its own"
            )
        owners[number] = name
    return plan.model_copy(update={"labels": labels})


def _share_of(progress: ProgressCallback, number: int, parts: int) -> Callable[[int, int], None]:
    """Return a callback of one of several networks, each of which is an equal share of a scan."""

    def told(done: int, total: int) -> None:
        progress(number * total + done, parts * total)

    return told
