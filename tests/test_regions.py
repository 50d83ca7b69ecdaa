"""Overlapping regions: learnt by sigmoids, scored as unions, and shown in one mask."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.meta_tensor import MetaTensor
from support.config import composed
from support.plans import fingerprint

from segpipe.errors import ConfigError
from segpipe.geometry import Grid, ModelSpace
from segpipe.plan import Plan
from segpipe.planning.rules import make_plan
from segpipe.regions import index_regions, misshown, painted_ids
from segpipe.training.loss import SegmentationLoss

LABELS = {"background": 0, "oedema": 2, "core": 1, "enhancing": 4}  # BraTS
WEIGHTS = {"dice": 1.0, "cross_entropy": 1.0}
REGIONS = "{whole:[1,2,4],core:[1,4],enhancing:[4]}"


def plan(regions: str | None = REGIONS) -> Plan:
    options = composed(*([f"data.regions={regions}"] if regions else []))
    return make_plan(options, fingerprint((1, 1, 1), (64, 64, 64)), ["MRI"], LABELS, "cpu")


def test_a_plan_has_regions_in_ids_inside() -> None:
    found = plan()
    assert found.regions == {"whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    assert (found.outputs, found.targets) == (3, found.regions)
    assert painted_ids(found.regions, found.paint) == [1, 2, 3]
    assert painted_ids(found.regions, None) == [1, 2, 3]  # plans of before there was a choice
    assert (plan(None).outputs, plan(None).targets) == (
        4,
        {"oedema": [1], "core": [2], "enhancing": [3]},
    )


@pytest.mark.parametrize(
    ("regions", "line"),
    [
        (
            "{whole:[1,2,3]}",
            "data.regions.whole has the id 3, but the labels to unite are 0 background, 2 oedema, 1 core",
        ),
        ("{whole:[1,4]}", "data.regions leaves out the label oedema: put its id 2 into a region"),
        ("{whole:[1,2,4],core:[]}", "data.regions.core is empty"),
    ],
)
def test_wrong_regions_are_refused(regions: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(regions)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("regions", "paint", "painted"),
    [
        # BraTS-PED: the smallest id that a region has alone among those inside it
        ({"WT": [1, 2, 3, 4], "TC": [1, 2, 3], "ET": [1]}, None, {"WT": 4, "TC": 2, "ET": 1}),
        # in any order
        ({"ET": [1], "TC": [1, 2, 3], "WT": [1, 2, 3, 4]}, None, {"WT": 4, "TC": 2, "ET": 1}),
        ({"whole": [1, 2, 3, 4]}, None, {"whole": 1}),
        # parts that fill their whole: an id that no label has
        ({"whole": [1, 2, 3, 4], "a": [1, 2], "b": [3, 4]}, None, {"whole": 5, "a": 1, "b": 3}),
        # as nnU-Net's regions_class_order
        (
            {"WT": [1, 2, 3, 4], "TC": [1, 2, 3], "ET": [1]},
            {"WT": 4, "TC": 3, "ET": 1},
            {"WT": 4, "TC": 3, "ET": 1},
        ),
        ({"WT": [1, 2, 3, 4], "ET": [1]}, {"WT": 9}, {"WT": 9, "ET": 1}),
    ],
)
def test_what_regions_paint(
    regions: dict[str, list[int]], paint: dict[str, int] | None, painted: dict[str, int]
) -> None:
    labels = {"background": 0, "a": 1, "b": 2, "c": 3, "d": 4}
    found = index_regions(regions, labels, paint)
    assert found is not None
    ids = list(found.labels.values())
    assert {name: ids[index] for name, index in found.paint.items()} == painted
    assert misshown(found.regions, found.paint) == {}
    for name, indices in found.regions.items():
        assert set(regions[name]) <= {ids[index] for index in indices}


@pytest.mark.parametrize(
    ("paint", "line"),
    [
        ({"core": 1}, "data.paint.core: there are the regions whole, inner"),
        ({"whole": 7}, "data.paint.whole is 7, which is data.ignore_label"),
    ],
)
def test_wrong_paint_is_refused(paint: dict[str, int], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        index_regions({"whole": [1, 2], "inner": [2]}, {"bg": 0, "a": 1, "b": 2}, paint, 7)
    assert str(caught.value).startswith(line)


def test_regions_that_a_mask_cannot_show_are_named() -> None:
    found = index_regions({"A": [1, 3], "B": [2, 3]}, {"bg": 0, "a": 1, "b": 2, "both": 3})
    assert found is not None
    assert misshown(found.regions, found.paint) == {3: 2}  # B is painted over A


@given(data=st.data())
@settings(deadline=None)
def test_nested_regions_survive_a_mask(data: st.DataObject) -> None:
    """Any regions of which each two are nested or apart are shown by what they paint by default."""
    count = data.draw(st.integers(1, 7))
    labels = {"background": 0} | {f"label {number}": number * 3 for number in range(1, count + 1)}
    numbers = data.draw(st.permutations(list(labels.values())[1:]))
    regions = {"all": list(numbers)}
    for depth in range(data.draw(st.integers(0, 4))):
        parent = data.draw(st.sampled_from(sorted(regions)))
        start = data.draw(st.integers(0, len(regions[parent]) - 1))
        end = data.draw(st.integers(start + 1, len(regions[parent])))
        candidate = regions[parent][start:end]
        others = [set(ids) for ids in regions.values()]
        if all(
            not (set(candidate) & o) or set(candidate) <= o or o <= set(candidate) for o in others
        ):
            regions[f"inner {depth}"] = candidate
    names = data.draw(st.permutations(sorted(regions)))
    found = index_regions({name: regions[name] for name in names}, labels)
    assert found is not None
    assert misshown(found.regions, found.paint) == {}


def test_the_loss_of_regions_is_the_textbooks() -> None:
    loss = SegmentationLoss(plan(), WEIGHTS)
    logits, label = torch.randn(2, 3, 4, 5, 6), torch.randint(0, 4, (2, 1, 4, 5, 6))
    truth = torch.stack([label[:, 0] >= 1, label[:, 0] >= 2, label[:, 0] >= 3], 1).float()
    p = torch.sigmoid(logits)
    entropy = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean()
    dice = [
        2 * (p[:, k] * truth[:, k]).sum() / (p[:, k].sum() + truth[:, k].sum()) for k in range(3)
    ]
    assert float(loss(logits, label)) == pytest.approx(
        float(entropy + 1 - torch.stack(dice).mean()), abs=1e-5
    )


def test_the_loss_of_labels_is_the_textbooks() -> None:
    loss = SegmentationLoss(plan(None), {"dice": 0.5, "cross_entropy": 1.0})
    logits, label = torch.randn(2, 4, 4, 5, 6), torch.randint(0, 4, (2, 1, 4, 5, 6))
    p, truth = torch.softmax(logits, 1), torch.nn.functional.one_hot(label[:, 0]).movedim(-1, 1)
    entropy = -(truth * p.log()).sum(1).mean()
    dice = [
        2 * (p[:, k] * truth[:, k]).sum() / (p[:, k].sum() + truth[:, k].sum()) for k in (1, 2, 3)
    ]
    expected = float(entropy + 0.5 * (1 - torch.stack(dice).mean()))
    assert float(loss(logits, label)) == pytest.approx(expected, abs=1e-5)
    assert float(loss.terms(logits, label)["cross_entropy"]) == pytest.approx(
        float(entropy), abs=1e-5
    )


@pytest.mark.parametrize("regions", [REGIONS, None])
def test_deep_supervision_halves_each_coarser_level(regions: str | None) -> None:
    found = plan(regions)
    loss = SegmentationLoss(found, WEIGHTS)
    small = torch.randint(0, 4, (2, 1, 4, 4, 4), dtype=torch.uint8)
    label = small.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    fine, coarse = torch.randn(2, found.outputs, 8, 8, 8), torch.randn(2, found.outputs, 4, 4, 4)
    expected = (loss(fine, label) * 2 + loss(coarse, small)) / 3
    assert float(loss([fine, coarse], label)) == pytest.approx(float(expected), abs=1e-6)


@given(seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=20)
def test_a_mask_shows_the_innermost_region(seed: int) -> None:
    """Any nested set of regions is the same after it was written as a mask and read again."""
    truth = np.random.default_rng(seed).integers(0, 4, (5, 4, 3))
    found = plan()
    assert found.regions is not None
    ids = painted_ids(found.regions, found.paint)
    sure = torch.stack(
        [torch.from_numpy(np.isin(truth, region)) for region in found.regions.values()]
    ).float()
    grid = Grid.of(MetaTensor(torch.zeros(1, 5, 4, 3), torch.eye(4)))
    mask = ModelSpace((None, None, None)).to_native([sure], 0, grid, ids)[0].numpy()
    assert np.array_equal(mask, truth)
