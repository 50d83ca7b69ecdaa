"""The doctor's advice on metrics, from the size and form of each label."""

from pathlib import Path

import numpy as np
import pytest

from segpipe.data.cases import Case
from segpipe.data.inspected_case import InspectedCase
from segpipe.data.inspection import _measure_labels
from segpipe.geometry import Grid
from segpipe.planning.metric_advice import advise

LABELS = {"background": 0, "organ": 1}


def inspected(label: np.ndarray) -> InspectedCase:
    case = InspectedCase(Case("a", (Path("a.nii"),), None), grid=Grid(label.shape, np.eye(4)))
    _measure_labels(case, label, (1.0, 1.0, 1.0))
    return case


def organ(size: tuple[int, int, int]) -> np.ndarray:
    label = np.zeros((48, 48, 48), np.uint8)
    label[tuple(slice(4, 4 + edge) for edge in size)] = 1
    return label


def dots() -> np.ndarray:
    label = np.zeros((48, 48, 48), np.uint8)
    for corner in np.ndindex(2, 2, 2):
        x, y, z = (4 + 22 * step for step in corner)
        label[x : x + 14, y : y + 14, z : z + 14] = 1
    return label


def vessel() -> np.ndarray:
    label = np.zeros((64, 64, 1), np.uint8)
    label[2:60, 10:12] = label[30, 2:60] = 1
    return label


@pytest.mark.parametrize(
    ("label", "metrics", "word"),
    [
        (organ((30, 30, 30)), (), "compact"),
        (vessel(), ("cldice",), "thin"),
        (organ((4, 4, 3)), (), "small (48 voxels)"),
        (dots(), ("object_f1", "object_dice"), "8 objects a case"),
    ],
)
def test_each_form_has_its_metrics(label: np.ndarray, metrics: tuple[str, ...], word: str) -> None:
    (advice,) = advise([inspected(label)] * 3, LABELS)
    assert advice.metrics == metrics
    assert word in str(advice)


def test_a_label_that_is_often_absent_is_counted_where_it_is_not() -> None:
    cases = [inspected(organ((30, 30, 30)))] * 8 + [inspected(np.zeros((48, 48, 48), np.uint8))] * 2
    (advice,) = advise(cases, LABELS)
    assert advice.metrics == ("false_objects",)
    assert "absent in 2 cases" in str(advice)
    assert advise([], LABELS) == []
