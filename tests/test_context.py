"""How coarse model space is: resolution against the field of view of a patch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.config import composed
from support.plans import fingerprint

from segpipe.data.ceiling import FACTORS, ceilings
from segpipe.geometry import Grid, ModelSpace, Volume
from segpipe.plan import Plan
from segpipe.planning.fingerprint import LabelSize
from segpipe.planning.rules import make_plan

LABELS = {"background": 0, "organ": 1}
ORGANS = (0.99, 0.985, 0.977)  # such as lungs and heart in a chest X-ray
WALLS = (0.942, 0.908, 0.771)  # such as ventricles and myocardium at 1.5 mm
VESSELS = (0.914, 0.855, 0.727)


def plan(
    spacing: tuple[float, ...],
    shape: tuple[int, ...],
    measured: tuple[float, ...],
    *overrides: str,
    parts: float = 1.0,
) -> Plan:
    seen = replace(
        fingerprint(spacing, shape),
        ceilings=measured,
        labels={1: LabelSize(5, 0.02, parts, 3.4)},
    )
    return make_plan(composed(*overrides), seen, ["MRI"], LABELS, "cpu")


def radiograph(measured: tuple[float, ...], *overrides: str, parts: float = 1.0) -> Plan:
    return plan((1.0, 1.0, 1.0), (1024, 1024, 1), measured, "model=unet2d", *overrides, parts=parts)


def test_organs_are_seen_whole() -> None:
    made = radiograph(ORGANS)
    assert made.spacing_mm == [8, 8, None]
    assert made.patch == [128, 128, 1]
    assert made.averages
    assert "a patch sees whole scans" in made.reasons[0]
    assert "about 0.977" in made.reasons[0]


def test_thin_walls_are_coarsened_no_further_than_the_largest_patch_needs() -> None:
    made = plan((1.5, 1.5, 10.0), (216, 256, 9), WALLS)
    assert made.spacing_mm == [3, 3, 10]
    assert made.patch[0] >= 108
    assert made.patch[1] >= 128
    assert made.batch == 1
    assert not made.averages


@pytest.mark.parametrize(
    ("measured", "parts", "override"),
    [
        (VESSELS, 1.0, "seed=0"),
        (ORGANS, 24.0, "seed=0"),
        ((), 1.0, "seed=0"),
        (ORGANS, 1.0, "plan.ceiling=1"),
        (ORGANS, 1.0, "plan.spacing=[1,1,1]"),
    ],
    ids=["threads", "cells", "not measured", "switched off", "given"],
)
def test_other_labels_keep_their_resolution(
    measured: tuple[float, ...], parts: float, override: str
) -> None:
    made = radiograph(measured, override, parts=parts)
    assert made.spacing_mm[:2] == [1, 1]
    assert made.patch == [128, 128, 1]
    assert not made.averages


def test_a_case_that_a_patch_sees_keeps_its_resolution() -> None:
    assert plan((1.0, 1.0, 1.0), (40, 50, 40), ORGANS).spacing_mm == [1, 1, 1]


def test_a_gpu_keeps_the_median() -> None:
    seen = replace(fingerprint((1.0, 1.0, 1.0), (1024, 1024, 1)), ceilings=ORGANS)
    made = make_plan(composed("model=unet2d"), seen, ["MRI"], LABELS, "cuda")
    assert made.spacing_mm == [1, 1, None]


def test_a_given_patch_decides_what_is_seen() -> None:
    assert radiograph(ORGANS, "plan.patch=[256,256]").spacing_mm == [4, 4, None]


def test_a_ball_survives_a_coarse_grid_and_a_thread_does_not() -> None:
    x, y, z = np.mgrid[:60, :60, :60] - 29.7
    ball = x**2 + y**2 + z**2 < 25**2
    found = ceilings(ball, (1.0, 1.0, 1.0))
    assert found[0] > 0.97
    assert list(found) == sorted(found, reverse=True)
    thread = np.zeros((200, 200, 1), bool)
    thread[range(200), range(200)] = True
    assert ceilings(thread, (1.0, 1.0, 1.0))[0] < 0.7


def test_coarse_axes_are_not_made_coarser() -> None:
    slices = np.zeros((64, 64, 5), bool)
    slices[16:48, 16:48, 2] = True  # of one slice, which a coarser grid across slices would lose
    assert ceilings(slices, (1.0, 1.0, 8.0))[FACTORS.index(8)] > 0.9


def test_voxels_between_those_of_a_coarse_grid_are_averaged() -> None:
    stripes = torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(16)[None, :, None, None].expand(1, 64, 8, 1)
    volume = Volume(stripes.contiguous(), np.eye(4))
    assert ModelSpace((4.0, None, None)).to_model(volume).max() == 0
    averaged = ModelSpace((4.0, None, None), averages=True).to_model(volume)
    assert averaged.shape == (1, 16, 8, 1)
    torch.testing.assert_close(averaged.mean(), torch.tensor(0.5), atol=0.02, rtol=0)


def test_nothing_changes_up_to_half_the_resolution() -> None:
    volume = Volume(torch.rand(1, 20, 30, 10), np.eye(4))
    spacing = tuple(mm * 2 for mm in Grid.of(volume).ras_spacing_mm)
    plain = ModelSpace(spacing).to_model(volume)  # type: ignore[arg-type]
    torch.testing.assert_close(ModelSpace(spacing, averages=True).to_model(volume), plain)  # type: ignore[arg-type]
