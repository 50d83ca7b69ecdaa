"""The network that is planned where `model.channels` is left to the plan."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.config import composed
from support.plans import fingerprint

from segpipe.device import NumberFormat
from segpipe.errors import ConfigError
from segpipe.plan import Plan
from segpipe.planning import memory
from segpipe.planning.capacity import derive_levels, planned_model
from segpipe.planning.memory import step_mib
from segpipe.planning.planner import _new_plan
from segpipe.stored import read_plan

LABELS = {"background": 0, "organ": 1}
BRAIN = ((1.0, 1.0, 1.0), (240, 240, 155))
HIPPOCAMPUS = ((1.0, 1.0, 1.0), (35, 50, 36))
LARGE = ["plan.patch=[128,128,128]", "plan.batch=2", "model=nnunet"]
FORMAT: dict[str, NumberFormat] = {"cpu": "float32", "cuda": "bf16"}
PlanOn = Callable[..., Plan]


@pytest.fixture
def plan_on(monkeypatch: pytest.MonkeyPatch) -> PlanOn:
    """Return a function that plans for a device of so many GiB."""

    def make(device: str, gib: float, *words: str, of: tuple = BRAIN) -> Plan:
        monkeypatch.setattr(
            memory, "usable_mib", lambda on: memory.USABLE[on.type] * gib * memory.GIB_IN_MIB
        )
        facts = (fingerprint(*of), ["MRI"], LABELS)
        return _new_plan(
            composed(*words), facts, torch.device(device), FORMAT[device], lambda: None
        )

    return make


@pytest.mark.parametrize(
    ("device", "gib", "widths", "patch", "batch"),
    [
        ("cpu", 8, [16, 32, 64, 128], [40, 40, 40], 2),
        ("cuda", 8, [32, 64, 128, 256, 320, 320], [128, 128, 128], 2),
        ("cuda", 24, [48, 96, 192, 384, 480, 480], [160, 160, 160], 2),
        ("cuda", 80, [64, 128, 256, 512, 640, 640], [192, 192, 160], 3),
    ],
)
def test_one_dataset_on_four_devices(
    plan_on: PlanOn, device: str, gib: float, widths: list[int], patch: list[int], batch: int
) -> None:
    made = plan_on(device, gib)
    assert (made.widths, made.patch, made.batch) == (widths, patch, batch)
    assert len(made.strides) == len(widths) - 1
    limit = memory.USABLE[device] * gib * memory.GIB_IN_MIB
    assert step_mib(made, composed(), FORMAT[device], device) <= limit
    assert any(reason.startswith(f"network of {len(widths)} levels") for reason in made.reasons)
    assert planned_model(composed().model, made).widths == widths  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("device", "widths"),
    [("cpu", [24, 48, 96, 192, 192]), ("cuda", [32, 64, 128, 256, 512, 512, 512])],
)
def test_a_2d_network_likewise(plan_on: PlanOn, device: str, widths: list[int]) -> None:
    assert plan_on(device, 8, "model=unet2d").widths == widths


def test_small_scans_have_fewer_levels(plan_on: PlanOn) -> None:
    made = plan_on("cuda", 8, of=HIPPOCAMPUS)
    assert (made.widths, made.patch, made.batch) == ([32, 64, 128, 256], [40, 56, 40], 16)


def test_given_channels_stay(plan_on: PlanOn) -> None:
    made = plan_on("cuda", 80, "model=nnunet")
    assert made.widths is None
    assert made.patch == [128, 128, 128]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("word", "levels"),
    [
        ("model.long_skips=[add,none]", 3),
        ("model.blocks=[1,1,2,2,2]", 5),
        ("plan.strides=[[2,2,2],[2,2,2]]", 3),
        ("plan.kernels=[[3,3,3],[3,3,3],[3,3,3]]", 3),
    ],
)
def test_lists_per_level_say_how_many_levels(
    plan_on: PlanOn, device: str, word: str, levels: int
) -> None:
    made = plan_on(device, 8, word)
    assert made.widths is not None
    assert len(made.widths) == len(made.kernels) == levels


def test_variants_of_skips_have_one_size_even_where_memory_is_short(plan_on: PlanOn) -> None:
    usual = plan_on("cuda", 4)
    dense = ("model.short_skips=dense", "model.growth_rate=32")
    for words in (("model.long_skips=none",), ("model.short_skips=residual",), dense):
        made = plan_on("cuda", 4, *words)
        assert (made.widths, made.strides) == (usual.widths, usual.strides)
        assert np.prod(made.patch) * made.batch <= np.prod(usual.patch) * usual.batch


def test_an_axis_of_few_voxels_leaves_the_others_to_be_halved() -> None:
    levels = derive_levels([6, 256, 256], [1.0, 1.0, 1.0], 6, False)
    assert levels.strides == [[1, 2, 2]] * 5
    assert levels.kernels == [[3, 3, 3]] * 6  # nnU-Net's kernels never become 1 again


def test_a_given_patch_is_halved_while_its_edges_are_even(plan_on: PlanOn) -> None:
    made = plan_on("cuda", 8, "plan.patch=[100,96,96]")
    assert np.prod(made.strides, axis=0).tolist() == [4, 16, 16]
    assert made.patch == [100, 96, 96]


def test_a_plan_of_before_says_nothing_of_channels(plan_on: PlanOn, tmp_path: Path) -> None:
    values = plan_on("cuda", 8).model_dump(mode="json")
    assert read_plan(tmp_path, dict(values)).widths == values["widths"]
    for key in ("widths", "parts", "recompute"):
        del values[key]
    before = read_plan(tmp_path, values)
    assert (before.widths, before.parts, before.recompute) == (None, 1, False)


# --- a step in parts, and activations that are computed again


@pytest.mark.parametrize(
    ("gib", "parts", "recompute"), [(8, 1, False), (4.5, 2, False), (3.3, 2, True)]
)
def test_a_given_step_is_computed_in_parts_where_memory_is_short(
    plan_on: PlanOn, gib: float, parts: int, recompute: bool
) -> None:
    made = plan_on("cuda", gib, *LARGE)
    assert (made.patch, made.batch) == ([128, 128, 128], 2)
    assert (made.parts, made.recompute) == (parts, recompute)
    assert ("in 2 parts" in made.reasons[-1]) == (parts == 2)
    assert ("computed again" in made.reasons[-1]) == recompute


def test_what_is_asked_for_stays(plan_on: PlanOn) -> None:
    made = plan_on("cpu", 8, "trainer.accumulate=3", "trainer.recompute=true")
    assert (made.batch, made.parts, made.recompute) == (3, 3, True)
    with pytest.raises(ConfigError, match="trainer.accumulate=3: plan.batch=4 is no multiple"):
        plan_on("cpu", 8, "trainer.accumulate=3", "plan.batch=4")
    with pytest.raises(ConfigError, match="needs about"):
        plan_on("cuda", 4, *LARGE, "trainer.accumulate=1", "trainer.recompute=false")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trainer.accumulate=2", "trainer.devices=2"], "trainer.accumulate=2 is for one device"),
        (["trainer.recompute=true", "model.norm=batch"], "trainer.recompute would count each"),
        (["trainer.recompute=true", "model=monai"], "trainer.recompute is for network=unet"),
    ],
)
def test_what_cannot_be_is_one_line(words: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composed(*words)
    assert line in str(caught.value)
