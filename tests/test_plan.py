"""What training derives from the data."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.config import composed
from support.plans import fingerprint

from segpipe.errors import ConfigError
from segpipe.plan import Plan
from segpipe.planning.memory import fitting_plan, step_mib
from segpipe.planning.rules import make_plan

LABELS = {"background": 0, "organ": 1}


def plan(
    spacing: tuple[float, ...],
    shape: tuple[int, ...],
    *overrides: str,
    channel: str = "MRI",
    device: str = "cpu",
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
    assert made.reasons[0].startswith("spacing 0.7x0.7 mm, each scan's own along axis 1: ")
    assert made.patch[1] == 1
    assert len(made.strides[0]) == 2
    assert (
        plan((0.7, 3.0, 0.7), (200, 40, 180), "model=unet2d", "data.slice_axis=0").slice_axis == 0
    )


def test_images_have_one_slice() -> None:
    made = plan((1.0, 1.0, 1.0), (256, 200, 1), "model=unet2d")
    assert made.slice_axis == 2
    assert made.patch[2] == 1


def test_equal_spacings_are_cut_into_axial_slices() -> None:
    assert plan((1.0, 1.0, 1.0), (64, 64, 64), "model=unet2d").slice_axis == 2


@pytest.mark.parametrize(
    ("channel", "rule"), [("CT", "ct"), ("MRI", "zscore"), ("image", "zscore")]
)
def test_intensities_follow_the_modality(channel: str, rule: str) -> None:
    assert plan((1.0, 1.0, 1.0), (64, 64, 64), channel=channel).normalise == [rule]
    assert plan(
        (1.0, 1.0, 1.0), (64, 64, 64), "plan.normalise=none", channel=channel
    ).normalise == ["none"]


def test_every_entry_can_be_given() -> None:
    given = ["plan.spacing=[2,2,3]", "plan.patch=[32,48,16]", "plan.batch=7"]
    made = plan((1.0, 1.0, 1.0), (64, 64, 64), *given, "model.channels=[4,8,16]")
    assert (made.spacing_mm, made.patch, made.batch) == ([2, 2, 3], [32, 48, 16], 7)
    assert all("given" in reason for reason in made.reasons[:3])


def test_a_patch_that_cannot_be_halved_says_what_can() -> None:
    says = (
        r"plan.patch entry 1 is 50, .* \(it needs a multiple of 4\): use 48 or 52, or fewer levels"
    )
    with pytest.raises(ConfigError, match=says):
        plan((1.0, 1.0, 1.0), (64, 64, 64), "plan.patch=[48,50,48]", "model.channels=[4,8,16]")


def test_a_slice_axis_is_for_2d_networks() -> None:
    with pytest.raises(
        ConfigError, match="data.slice_axis is for 2D networks, but model.dims is 3"
    ):
        plan((1.0, 1.0, 1.0), (64, 64, 64), "data.slice_axis=0")


def test_a_plan_survives_its_own_yaml() -> None:
    made = plan((0.8, 0.8, 5.0), (256, 256, 24))
    assert Plan.model_validate(made.model_dump(mode="json")) == made


def test_what_was_found_of_the_labels_is_told() -> None:
    assert (
        "organ: 2 % of the voxels of 5 cases, mostly in 1 part, the largest of 3.4 mL"
        in plan((1.0, 1.0, 1.0), (64, 64, 64)).reasons
    )


def test_strides_and_kernels_can_be_given() -> None:
    both = [
        "plan.strides=[[2,2,1],[2,2,2]]",
        "plan.kernels=[[3,3,1],[3,3,3],[3,3,3]]",
        "model.channels=[4,8,16]",
    ]
    made = plan((1.0, 1.0, 1.0), (64, 64, 64), *both)
    assert (made.strides, made.kernels) == (
        [[2, 2, 1], [2, 2, 2]],
        [[3, 3, 1], [3, 3, 3], [3, 3, 3]],
    )
    with pytest.raises(
        ConfigError,
        match=r"plan.strides must have 3 entries of 3, since model.channels has 4 levels",
    ):
        plan((1.0, 1.0, 1.0), (64, 64, 64), "plan.strides=[[2,2,1]]", "model.channels=[4,8,9,9]")


def test_each_channel_has_its_own_scale() -> None:
    seen = fingerprint((1.0, 1.0, 1.0), (64, 64, 64))
    two = replace(seen, foreground=seen.foreground * 2, zero_fraction=seen.zero_fraction * 2)
    made = [
        make_plan(composed(*more), two, ["CT", "PET"], LABELS, "cpu").normalise
        for more in ([], ["plan.normalise=[none,ct]"], ["plan.normalise=none"])
    ]
    assert made == [["ct", "zscore"], ["none", "ct"], ["none", "none"]]
    with pytest.raises(ConfigError, match="plan.normalise has 3 entries, but there are 2 channels"):
        make_plan(composed("plan.normalise=[none,ct,ct]"), two, ["CT", "PET"], LABELS, "cpu")


def first_that_fits(*overrides: str, device: str = "cpu") -> Plan:
    options = composed("model.channels=[16,32,64,128]", *overrides)
    seen = fingerprint((1.0, 1.0, 1.0), (512, 512, 300))
    return fitting_plan(
        lambda share: make_plan(options, seen, ["MRI"], LABELS, device, share),
        options,
        "float32",
        torch.device("cpu"),
    )


def test_a_plan_is_made_smaller_until_its_step_fits() -> None:
    usual, small = (
        first_that_fits(device="cuda"),
        first_that_fits("plan.memory_gib=2", device="cuda"),
    )
    assert usual.patch == [128, 128, 128]
    assert np.prod(small.patch) * small.batch < np.prod(usual.patch) * usual.batch
    assert (
        0.5 * 2048 < step_mib(small, composed("model.channels=[16,32,64,128]"), "float32") <= 2048
    )
    assert re.match(
        r"memory about \d+ of 2048 MiB: plan.memory_gib, for which patch or batch",
        small.reasons[-1],
    )


def test_a_given_patch_that_does_not_fit_is_refused() -> None:
    says = r"plan: a step of 2 patches of 128x128x128 needs about \d+ MiB, but 102 MiB may be used: give a smaller"
    with pytest.raises(ConfigError, match=says):
        first_that_fits("plan.memory_gib=0.1", "plan.patch=[128,128,128]", "plan.batch=2")
    assert first_that_fits("plan.memory_gib=0.5", "plan.batch=2").patch[0] < 128


def test_what_was_cut_out_of_its_background_is_planned_by_what_is_left() -> None:
    """A brain of 80 voxels in a volume of 160, the rest of which is 0: the patch is its size, and so is the scale."""
    seen = fingerprint((1.0, 1.0, 1.0), (160, 160, 160), (80, 24, 40), zero_fraction=0.9)
    made = make_plan(composed("model.channels=[4,8,16]"), seen, ["MRI"], LABELS, "cuda")
    assert made.patch == [80, 24, 40]
    assert made.normalise == ["zscore_nonzero"]
    assert "intensities zscore_nonzero: channels are MRI (90 % are 0)" in made.reasons
    assert make_plan(composed(), seen, ["CT"], LABELS, "cuda").normalise == ["ct"]


@pytest.mark.parametrize("scale", [0.5, *(0.8**trial for trial in range(20))])
def test_a_cube_is_shrunk_in_finite_time(scale: float) -> None:
    """A cube root times itself may exceed the number of voxels by a rounding error."""
    common = fingerprint((1.0, 1.0, 1.0), (512, 512, 300))
    made = make_plan(composed("model.channels=[4,8]"), common, ["MRI"], LABELS, "cpu", scale)
    assert len(set(made.patch)) == 1
