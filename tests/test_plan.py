"""What training derives from the data."""

import numpy as np
import pytest
from test_config import composed

from segpipe.errors import ConfigError
from segpipe.plan import Fingerprint, Plan, make_plan

LABELS = {"background": 0, "organ": 1}


def fingerprint(spacing: tuple[float, ...], shape: tuple[int, ...]) -> Fingerprint:
    return Fingerprint(np.tile(spacing, (5, 1)), np.tile(shape, (5, 1)), 1, [(0.0, 1.0, 0.5, 0.2)])


def plan(
    spacing: tuple[float, ...], shape: tuple[int, ...], *overrides: str, channel: str = "MRI", device: str = "cpu"
) -> Plan:
    return make_plan(composed(*overrides), fingerprint(spacing, shape), [channel], LABELS, device)


def test_a_small_volume_is_one_patch() -> None:
    made = plan((1.0, 1.0, 1.0), (35, 50, 36), "model.channels=[4,8,16,32]")
    assert made.patch == [40, 56, 40]
    assert made.strides == [[2, 2, 2]] * 3
    assert made.kernels == [[3, 3, 3]] * 4
    assert made.slice_axis is None


def test_a_large_volume_is_cut() -> None:
    assert plan((1.0, 1.0, 1.0), (512, 512, 300)).patch == [40, 40, 40]
    assert plan((1.0, 1.0, 1.0), (512, 512, 300), device="cuda").patch == [128, 128, 128]


def test_anisotropic_volumes_are_halved_in_plane_first() -> None:
    made = plan((0.8, 0.8, 5.0), (256, 256, 24), "model.channels=[4,8,16,32]")
    assert made.strides[0] == [2, 2, 1]
    assert made.kernels[0] == [3, 3, 1]
    assert made.kernels[3] == [3, 3, 3]
    assert made.patch[0] == made.patch[1] > 2 * made.patch[2]
    assert "anisotropic" in made.reasons[0]


def test_a_2d_network_sees_slices_across_the_largest_spacing() -> None:
    made = plan((0.7, 3.0, 0.7), (200, 40, 180), "model=unet2d")
    assert made.slice_axis == 1
    assert made.spacing_mm == [0.7, None, 0.7]
    assert made.patch[1] == 1
    assert len(made.strides[0]) == 2
    assert plan((0.7, 3.0, 0.7), (200, 40, 180), "model=unet2d", "data.slice_axis=0").slice_axis == 0


def test_images_have_one_slice() -> None:
    made = plan((1.0, 1.0, 1.0), (256, 200, 1), "model=unet2d")
    assert made.slice_axis == 2
    assert made.patch[2] == 1


def test_equal_spacings_are_cut_into_axial_slices() -> None:
    assert plan((1.0, 1.0, 1.0), (64, 64, 64), "model=unet2d").slice_axis == 2


@pytest.mark.parametrize(("channel", "rule"), [("CT", "ct"), ("MRI", "zscore"), ("image", "zscore")])
def test_intensities_follow_the_modality(channel: str, rule: str) -> None:
    assert plan((1.0, 1.0, 1.0), (64, 64, 64), channel=channel).normalise == rule
    assert plan((1.0, 1.0, 1.0), (64, 64, 64), "plan.normalise=none", channel=channel).normalise == "none"


def test_every_entry_can_be_given() -> None:
    given = ["plan.spacing=[2,2,3]", "plan.patch=[32,48,16]", "plan.batch=7"]
    made = plan((1.0, 1.0, 1.0), (64, 64, 64), *given, "model.channels=[4,8,16]")
    assert (made.spacing_mm, made.patch, made.batch) == ([2, 2, 3], [32, 48, 16], 7)
    assert all("given" in reason for reason in made.reasons[:3])


def test_a_patch_that_cannot_be_halved_says_what_can() -> None:
    says = r"plan.patch entry 1 is 50, .* \(it needs a multiple of 4\): use 48 or 52, or fewer levels"
    with pytest.raises(ConfigError, match=says):
        plan((1.0, 1.0, 1.0), (64, 64, 64), "plan.patch=[48,50,48]", "model.channels=[4,8,16]")


def test_a_slice_axis_is_for_2d_networks() -> None:
    with pytest.raises(ConfigError, match="data.slice_axis is for 2D networks, but model.dims is 3"):
        plan((1.0, 1.0, 1.0), (64, 64, 64), "data.slice_axis=0")


def test_a_plan_survives_its_own_yaml() -> None:
    made = plan((0.8, 0.8, 5.0), (256, 256, 24))
    assert Plan.model_validate(made.model_dump(mode="json")) == made
