"""Patches: cut where MONAI cuts them, and decided by the seed and their number alone."""

import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms.croppad.dictionary import RandCropByLabelClassesd, SpatialPadd
from support.config import composed
from support.patches import cut_and_augment, voxel_indices
from support.plans import case, plan

from segpipe.data.augment import UNCHANGED
from segpipe.data.cases import Case
from segpipe.data.module import count_workers
from segpipe.data.patch_sampler import PatchSampler
from segpipe.data.patches import Patches


@pytest.mark.parametrize(("foreground", "share"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5)])
def test_patches_are_centred_on_labels_as_often_as_requested(
    foreground: float, share: float
) -> None:
    label = torch.zeros(1, 40, 40, 40, dtype=torch.uint8)
    label[:, 20, 20, 20] = 1
    planned = plan("plan.patch=[4,4,4]", labels={"background": 0, "organ": 1})
    prepared = {"image": label.float(), "label": label, "indices": voxel_indices(label, 2)}
    none = composed("augment=none").augment
    hits = [
        cut_and_augment(planned, foreground, none, prepared, seed)["label"].any()
        for seed in range(200)
    ]
    assert np.mean(hits) == pytest.approx(share, abs=0.12)


@given(
    edges=st.tuples(*[st.integers(1, 12)] * 3),
    size=st.tuples(*[st.integers(1, 9)] * 3),
    shares=st.tuples(*[st.floats(0.1, 1)] * 3),
    seed=st.integers(0, 999),
)
def test_a_patch_is_cut_where_monai_cuts_it(
    edges: tuple, size: tuple, shares: tuple, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    prepared: dict[str, Any] = {
        "image": torch.from_numpy(rng.normal(size=(2, *edges))).float(),
        "label": torch.from_numpy(rng.integers(0, rng.integers(1, 4), (1, *edges), dtype=np.uint8)),
    }
    before = {name: voxels.clone() for name, voxels in prepared.items()}
    prepared["indices"] = voxel_indices(prepared["label"], 3)
    crop = RandCropByLabelClassesd(
        ("image", "label"),
        "label",
        size,
        list(shares),
        3,
        indices_key="indices",
        allow_smaller=True,
        warn=False,
    )
    theirs: Any = SpatialPadd(("image", "label"), size)(crop.set_random_state(seed)(prepared)[0])
    ours = PatchSampler(size, shares)(**prepared, seed=seed)
    for name in ("image", "label"):
        assert ours[name].dtype == prepared[name].dtype
        assert torch.equal(ours[name], torch.as_tensor(theirs[name]))
        ours[name].fill_(7)  # which must not reach the case, whose file it may be
        assert torch.equal(prepared[name], before[name])


def test_a_case_without_what_patches_are_centred_on_is_cut_anywhere() -> None:
    label = torch.zeros(1, 9, 8, 7, dtype=torch.uint8)
    sampler = PatchSampler((3, 3, 3), [0.0, 1.0])
    numbered = torch.arange(label.numel()).reshape(label.shape).float()
    indices = voxel_indices(label, 2)
    corners = {sampler(numbered, label, indices, seed)["image"].min() for seed in range(50)}
    assert len(set(map(float, corners))) > 20


def test_a_patch_depends_on_its_number_alone(tmp_path: Path) -> None:
    cache = f"data.cache={tmp_path / 'cache'}"
    options = composed("model.channels=[4,8]", "augment=strong", "augment.warmup=0", cache)
    cases = [case(tmp_path, seed) for seed in range(3)]
    first = [Patches(cases, plan(), options)[number]["image"] for number in range(6)]
    again = Patches(cases, plan(), options)
    for number in (5, 0, 3):
        assert torch.equal(again[number]["image"], first[number])
    assert not torch.equal(first[0], first[3])


def test_more_patches_are_augmented_with_every_round_of_the_warm_up(tmp_path: Path) -> None:
    cache = f"data.cache={tmp_path / 'cache'}"
    words = ["model.channels=[4,8]", "augment=strong", "augment.warmup=3", cache]
    number_of_cases = 400
    cases = [case(tmp_path, 0)] * number_of_cases
    warming = Patches(cases, plan("plan.patch=[20,16,12]"), composed(*words))
    shares = []
    for round_number in range(5):
        seeds = [seed for _, _, seed in warming._draw_round(round_number)]
        shares.append(np.mean(np.array(seeds) != UNCHANGED))
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1, 1], abs=0.08)
    assert shares[3:] == [1, 1]


@pytest.mark.parametrize(
    ("patch", "rounds"),
    [([20, 16, 12], 3), ([40, 20, 20], 3), ([10, 16, 12], 6), ([10, 8, 12], 12), ([10, 8, 6], 24)],
)
def test_a_warm_up_counts_how_often_a_whole_label_is_shown(
    tmp_path: Path, patch: list[int], rounds: float
) -> None:
    """Labels here are spread over the whole of a case."""
    words = ["model.channels=[4,8]", "augment.warmup=3", f"data.cache={tmp_path / 'cache'}"]
    given = f"plan.patch={patch}".replace(" ", "")
    warming = Patches([case(tmp_path, seed) for seed in range(9)], plan(given), composed(*words))
    assert warming.warmup == pytest.approx(rounds, rel=0.05)


def test_a_warm_up_is_short_where_a_patch_shows_a_small_label_whole(tmp_path: Path) -> None:
    label = np.zeros((40, 40, 40), np.uint8)
    label[30:34, 7:11, 20:24] = 1
    for name in ("image", "label"):
        nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / f"{name}.nii")
    small = Case("small", (tmp_path / "image.nii",), tmp_path / "label.nii")
    planned = plan("plan.patch=[8,8,8]", labels={"background": 0, "organ": 1})
    words = ["model.channels=[4,8]", "augment.warmup=3", f"data.cache={tmp_path / 'cache'}"]
    often = Patches([small], planned, composed(*words, "plan.foreground=1"))
    assert often.warmup == 3
    never = Patches([small], planned, composed(*words, "plan.foreground=0"))
    assert 20 < never.warmup <= 3 * 5**3, "at most as of a label that fills the case"


def test_a_warm_up_leaves_all_other_draws_alone(tmp_path: Path) -> None:
    cache = f"data.cache={tmp_path / 'cache'}"
    words = ["model.channels=[4,8]", "augment=strong", cache]
    cases = [case(tmp_path, seed) for seed in range(8)]
    usual = Patches(cases, plan(), composed(*words, "augment.warmup=0"))
    warming = Patches(cases, plan(), composed(*words, "augment.warmup=9"))
    same = 0
    for number in range(16):
        first = usual[number]
        second = warming[number]
        assert first["case"] == second["case"]
        same += torch.equal(first["image"], second["image"])
        if second["seed"] == UNCHANGED:
            assert second["image"].shape == first["image"].shape
        else:
            assert torch.equal(first["image"], second["image"])
    assert 0 < same < 16


def test_a_cpu_that_trains_cuts_its_own_patches() -> None:
    cpu = torch.device("cpu")
    gpu = torch.device("cuda")
    assert count_workers(None, cpu) == 0
    assert 0 <= count_workers(None, gpu) <= 8
    assert count_workers(3, cpu) == count_workers(3, gpu) == 3


def test_cases_stay_open_only_while_they_are_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [case(tmp_path, seed) for seed in range(2)]
    options = composed(f"data.cache={tmp_path / 'cache'}")
    small = Patches(cases, plan(), options)
    monkeypatch.setattr("segpipe.data.patches.HELD_MIB", 0)
    large = Patches(cases, plan(), options)
    for number in range(4):
        assert torch.equal(small[number]["image"], large[number]["image"])
    assert small.held is not None
    assert len(small.held) == 2
    assert large.held is None
    sent = pickle.loads(pickle.dumps(small))
    assert sent.held == {}
    assert torch.equal(sent[3]["image"], small[3]["image"])
