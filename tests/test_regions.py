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
from segpipe.regions import region_label
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
    assert [region_label(found.regions, name) for name in found.regions] == [1, 2, 3]
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
        (
            "{whole:[1,2,4]}",
            "data.regions.whole must have just one id that no region after it has, by which a mask shows",
        ),
        (
            "{core:[1,4],whole:[1,2,4]}",
            "data.regions.core must have just one id that no region after it has",
        ),
    ],
)
def test_regions_that_a_mask_cannot_show_are_refused(regions: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(regions)
    assert str(caught.value).startswith(line)


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
    ids = [region_label(found.regions, name) for name in found.regions]
    sure = torch.stack(
        [torch.from_numpy(np.isin(truth, region)) for region in found.regions.values()]
    ).float()
    grid = Grid.of(MetaTensor(torch.zeros(1, 5, 4, 3), torch.eye(4)))
    mask = ModelSpace((None, None, None)).to_native([sure], 0, grid, ids)[0].numpy()
    assert np.array_equal(mask, truth)
