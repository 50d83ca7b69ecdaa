"""How coarse model space is: resolution against the field of view of a patch."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from support.config import composed
from support.plans import fingerprint

from segpipe.data.ceiling import FACTORS, ceilings
from segpipe.device import NumberFormat
from segpipe.geometry import Grid, ModelSpace, Volume
from segpipe.plan import Plan
from segpipe.planning.capacity import planned_model
from segpipe.planning.fingerprint import LabelSize
from segpipe.planning.pace import Pace
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
    spread: float = 1.0,
    count: int = 1,
    pace: Pace | None = None,
) -> Plan:
    labels = dict.fromkeys(range(1, count + 1), LabelSize(5, 0.02, 24.0, 3.4, spread))
    seen = replace(fingerprint(spacing, shape), ceilings=measured, labels=labels)
    return make_plan(composed(*overrides), seen, ["MRI"], LABELS, "cpu", pace=lambda: pace)


def radiograph(measured: tuple[float, ...], *overrides: str, spread: float = 1.0) -> Plan:
    return plan(
        (1.0, 1.0, 1.0), (1024, 1024, 1), measured, "model=unet2d", *overrides, spread=spread
    )


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
    ("measured", "spread", "override"),
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
    measured: tuple[float, ...], spread: float, override: str
) -> None:
    made = radiograph(measured, override, spread=spread)
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


BRAIN = (0.833, 0.6, 0.3)  # 37 small labels


def mouse(seconds: float, *overrides: str, count: int = 37) -> Plan:
    pace = Pace(composed(), float(seconds), 2.5e-6)
    return plan((0.15,) * 3, (70, 124, 50), BRAIN, *overrides, count=count, pace=pace)


def test_a_short_budget_makes_many_labels_coarser() -> None:
    made = mouse(480)
    assert made.spacing_mm == pytest.approx([0.252] * 3, abs=1e-3)
    assert "42 scans for each label, in place of 25 at a finer spacing" in made.reasons[0]
    assert mouse(60).spacing_mm == pytest.approx([0.3] * 3)  # as far as the ceiling allows
    assert mouse(60, "plan.short_ceiling=0.9").spacing_mm == mouse(10_000).spacing_mm


@pytest.mark.parametrize(("seconds", "count"), [(1200, 37), (480, 4)], ids=["long", "few labels"])
def test_a_budget_that_is_long_for_its_labels_changes_nothing(seconds: float, count: int) -> None:
    made = mouse(seconds, count=count)
    assert made == mouse(math.inf, count=count)
    assert made.spacing_mm == pytest.approx([0.212] * 3, abs=1e-3)
    assert "the budget" not in made.reasons[0]


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine be one with AVX512 and AMX, whatever it is."""
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": True})


@pytest.mark.usefixtures("amx")
def test_pace_follows_budget_network_and_labels() -> None:
    def patches(*overrides: str, labels: int = 2, channels: str = "[16,32]") -> float:
        options = composed(*overrides, f"model.channels={channels}")
        found = Pace.of(options, "bf16", 1, labels)
        assert found is not None
        return found.patches([40, 40, 40], [1.0, 1.0, 1.0], 1e6)

    ten = "trainer.max_time=00:00:10:00"
    usual = patches(ten)
    assert patches() == pytest.approx(3 * usual)  # half an hour, where no budget is given
    assert patches(ten, labels=37) < 0.7 * usual
    assert patches(ten, channels="[32,64]") < 0.4 * usual
    assert Pace.of(composed("trainer.max_steps=9"), "bf16", 1, 2) is None


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


@pytest.mark.parametrize("model", ["unet2d", "unet3d", "attention_unet_2018", "resenc_2024"])
@pytest.mark.parametrize(
    "override", ["seed=0", "model.short_skips=residual", "model.long_skips=[add,none]"]
)
def test_a_budget_of_time_plans_a_network_that_is_not_given(model: str, override: str) -> None:
    """The pace is estimated from the network that the plan will have."""
    if "long_skips" in override and not model.startswith("unet"):
        override = "model.long_skips=add"
    options = composed(f"model={model}", override, "trainer.max_time=00:00:10:00")
    pace = Pace.of(options, "bf16", 1, len(LABELS))
    assert pace is not None
    shape = (1024, 1024, 1) if options.model.dims == 2 else (216, 256, 90)
    labels = {1: LabelSize(5, 0.02, 24.0, 3.4, 1.0)}
    seen = replace(fingerprint((1.0,) * 3, shape), ceilings=ORGANS, labels=labels)
    made = make_plan(options, seen, ["MRI"], LABELS, "cpu", pace=lambda: pace)
    assert made.spacing_mm[0] >= 2
    given = options.model_copy(update={"model": planned_model(options.model, made)})
    assert Pace.of(given, "bf16", 1, len(LABELS)) == replace(pace, options=given, capacity=None)


@pytest.mark.parametrize("levels", [3, 5])
def test_the_pace_has_the_levels_that_are_given(levels: int) -> None:
    strides = str([[2, 2]] * (levels - 1)).replace(" ", "")
    options = composed("model=unet2d", f"plan.strides={strides}", "trainer.max_time=00:00:10:00")
    pace = Pace.of(options, "bf16", 1, 1)
    assert pace is not None
    assert pace.options.model.levels == levels
    assert pace.patches((512, 512), (1.0, 1.0), 256.0**2) > 0


@pytest.mark.parametrize(
    ("dims", "usual", "narrow"),
    [(2, [24, 48, 96, 192, 192], [16, 32, 64, 128, 128]), (3, [16, 32, 64, 128], [8, 16, 32, 64])],
)
def test_a_budget_of_few_steps_gets_a_narrower_network(
    dims: int, usual: list[int], narrow: list[int]
) -> None:
    """Whatever its skips, so that all variants of a study have one size; steps are no such budget."""

    def widths(*overrides: str, labels: int = 2) -> list[int] | None:
        options = composed(f"model=unet{dims}d", *overrides)
        seen = fingerprint((1.0, 1.0, 1.0), (64, 64, 64 if dims == 3 else 1))
        pace = partial(Pace.of, options, "float32", 1, labels)
        return make_plan(options, seen, ["MRI"], LABELS, "cpu", pace=pace).widths

    assert widths("trainer.max_time=01:00:00:00") == usual
    assert widths("trainer.max_steps=10") == usual
    for skips in ("none", "concat"):
        short = ["trainer.max_time=00:00:01:00", f"model.long_skips={skips}"]
        assert widths(*short) == narrow
        assert widths(*short, "model.short_skips=residual") == narrow
    assert widths("trainer.max_time=00:00:01:00", labels=37) == usual  # narrow cannot tell them
    given = "model.channels=[4,8]"
    assert widths("trainer.max_time=00:00:01:00", given) is None


@pytest.mark.parametrize(("dims", "minutes"), [(2, 20), (3, 5)])
def test_a_2d_network_needs_more_steps_before_it_is_wide(
    dims: int, minutes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two cores that have bf16 and no AMX: narrow in a quarter of the minutes, wide in twice as many."""
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": False})
    monkeypatch.setattr("segpipe.planning.pace.usual_threads", lambda: 2)

    def first_channels(seconds: int) -> int:
        options = composed(f"model=unet{dims}d", f"trainer.max_time=00:00:00:{seconds}")
        found = Pace.of(options, "bf16", 1, 2)
        assert found is not None
        assert found.capacity is not None
        return found.capacity.first

    usual, narrow = {2: (24, 16), 3: (16, 8)}[dims]
    assert first_channels(60 * minutes // 4) == narrow
    assert first_channels(60 * minutes * 2) == usual


def test_a_core_without_avx512_or_amx_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    def patches(
        capability: str, number_format: NumberFormat, amx: bool = False, dims: int = 3
    ) -> float:
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": amx})
        options = composed(f"model=unet{dims}d", "model.channels=[16,32]")
        found = Pace.of(options, number_format, 1, 2)
        assert found is not None
        return found.patches([40] * dims, [1.0] * dims, 1e6)

    assert patches("AVX2", "float32") == pytest.approx(patches("AVX512", "float32") / 2, rel=0.1)
    assert patches("AVX2", "bf16") == patches("AVX2", "float32")  # emulated at best
    assert patches("AVX512", "bf16") > 1.3 * patches("AVX512", "float32")
    assert patches("AVX512", "bf16", amx=True) > 2 * patches("AVX512", "float32")
    assert patches("AVX512", "float32", amx=True) == patches("AVX512", "float32")
    assert patches("AVX512", "bf16", amx=True, dims=2) == patches("AVX512", "bf16", dims=2)
