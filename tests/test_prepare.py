"""Case -> network-ready volume -> patches."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms.croppad.dictionary import RandCropByLabelClassesd, SpatialPadd
from monai.transforms.intensity.dictionary import RandGaussianSmoothd
from support.config import composed
from support.plans import LABELS, case, fingerprint, plan
from torch.utils.data import default_collate

from segpipe.config.train import Augment
from segpipe.data.augment import RandBlurd, make_augmentation, make_sampler
from segpipe.data.doctor import inspect_cases
from segpipe.data.module import count_workers
from segpipe.data.patch_sampler import PatchSampler
from segpipe.data.patches import Patches, augment_batch
from segpipe.data.prepare import mask_dtype, normalise, prepare_scan, to_index, to_label
from segpipe.data.prepared_case import prepare_case
from segpipe.errors import DataError
from segpipe.plan import Plan
from segpipe.planning.fingerprint import fingerprint as look
from segpipe.planning.fingerprint import label_ids
from segpipe.planning.rules import make_plan


def where(label: torch.Tensor, labels: int) -> list[np.ndarray]:
    return [(label.numpy().ravel() == number).nonzero()[0] for number in range(labels)]


def cut_and_change(
    made: Plan, foreground: float, augment: Augment, given_: dict[str, Any], seed: int
) -> dict[str, Any]:
    patch = make_sampler(made, foreground, augment)(**given_, seed=seed)
    return make_augmentation(made, augment)(patch, seed)


@given(ids=st.sets(st.integers(1, 70_000), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_label_ids_return_as_they_were(ids: set[int], seed: int) -> None:
    labels = {"background": 0} | {f"label {number}": number for number in sorted(ids)}
    disk = np.random.default_rng(seed).choice([0, *ids], (1, 4, 3, 2))
    inside = to_index(disk, labels, Path("x"))
    assert inside.max() < len(labels)
    assert np.array_equal(to_label(inside, labels), disk)
    assert to_label(inside, labels).dtype == mask_dtype(labels)


def test_masks_of_one_label_set_share_their_type() -> None:
    kinds = [
        mask_dtype({"background": 0, "a": largest}) for largest in (1, 255, 256, 65_535, 65_536)
    ]
    assert kinds == [np.uint8, np.uint8, np.uint16, np.uint16, np.uint32]


@pytest.mark.parametrize("value", [3, -2, 0.5])
def test_an_undeclared_label_is_named_with_its_voxels(value: float) -> None:
    ids = np.array([0, 1, 4, value, value]).reshape(1, 5, 1, 1)
    with pytest.raises(
        DataError,
        match=rf"^x.nii: holds {value:g} \(2 voxels\), but the dataset declares only 0 background",
    ):
        to_index(ids, LABELS, Path("x.nii"))


def test_zscore_nonzero_leaves_what_was_cut_away_alone() -> None:
    image = torch.zeros(1, 9, 8, 7)
    image[:, 2:5, 3:6, 1:4] = torch.randn(1, 3, 3, 3) * 50 + 900
    found = normalise(image, plan("plan.normalise=zscore_nonzero"))
    inside = found[image != 0]
    assert (found[image == 0] == 0).all()
    assert inside.mean().abs() < 1e-5
    assert inside.std(correction=0) == pytest.approx(1, abs=1e-5)
    blank = torch.zeros(1, 3, 3, 3)
    assert torch.equal(normalise(blank, plan("plan.normalise=zscore_nonzero")), blank)


def test_zscore_is_per_scan_and_channel() -> None:
    image = torch.stack([torch.randn(9, 8, 7) * 1e5 + 3e5, torch.randn(9, 8, 7)])
    two = plan().model_copy(
        update={"normalise": ["zscore"] * 2, "foreground": plan().foreground * 2}
    )
    for channel in normalise(image, two):
        assert channel.mean().item() == pytest.approx(0, abs=1e-4)
        assert channel.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert torch.equal(normalise(torch.full((1, 4, 4, 4), 7.0), plan()), torch.zeros(1, 4, 4, 4))


def test_ct_is_clipped_to_the_foregrounds_percentiles() -> None:
    made = plan("plan.normalise=ct").model_copy(
        update={"foreground": [(-100.0, 200.0, 50.0, 25.0)]}
    )
    image = torch.tensor([-1000.0, -100, 50, 75, 200, 3000]).reshape(1, 6, 1, 1)
    assert normalise(image, made).flatten().tolist() == [-6, -6, 0, 1, 6, 6]


def test_a_prepared_case_keeps_every_label(tmp_path: Path) -> None:
    prepared = prepare_case(case(tmp_path), plan())
    assert prepared.image.shape == prepared.label.shape == (1, 20, 16, 12)
    assert prepared.label.unique().tolist() == [0, 1, 2, 3]
    for label, places in enumerate(prepared.indices):
        assert (prepared.label.flatten()[torch.as_tensor(places)] == label).all()


def test_another_number_of_channels_is_refused(tmp_path: Path) -> None:
    image = case(tmp_path).images[0]
    with pytest.raises(
        DataError, match=r"image0.nii: has 2 channels, but the network was planned for 1"
    ):
        prepare_scan([image, image], plan())


@pytest.mark.parametrize("choice", ["none", "light", "standard", "strong"])
def test_image_and_label_move_together(tmp_path: Path, choice: str) -> None:
    """The image is the label map itself, so whatever moves them both keeps them equal but for interpolation."""
    options = composed(f"augment={choice}", "augment.noise=0", "augment.blur=0", "augment.brightness=0", "augment.contrast=0",
                       "augment.gamma=0", "augment.low_resolution=0", "augment.mirror_axes=[0,1,2]")  # fmt: skip
    label = torch.zeros(1, 40, 40, 40, dtype=torch.uint8)
    label[:, 8:30, 10:26, 12:34] = 1
    made = plan("plan.patch=[24,24,24]", labels={"background": 0, "organ": 1})
    given_ = {"image": label.float(), "label": label, "indices": where(label, 2)}
    for seed in range(8):
        patch = cut_and_change(made, 0.5, options.augment, given_, seed)
        assert patch["image"].shape == patch["label"].shape == (1, 24, 24, 24)
        agree = ((patch["image"] > 0.5) == (patch["label"] > 0)).float().mean()
        assert agree > (0.999 if choice == "none" else 0.97)


@pytest.mark.parametrize(("foreground", "share"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5)])
def test_patches_are_centred_on_labels_as_often_as_asked(foreground: float, share: float) -> None:
    label = torch.zeros(1, 40, 40, 40, dtype=torch.uint8)
    label[:, 20, 20, 20] = 1
    made = plan("plan.patch=[4,4,4]", labels={"background": 0, "organ": 1})
    given_ = {"image": label.float(), "label": label, "indices": where(label, 2)}
    still = composed("augment=none").augment
    hits = [
        cut_and_change(made, foreground, still, given_, seed)["label"].any() for seed in range(200)
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
    given_: dict[str, Any] = {
        "image": torch.from_numpy(rng.normal(size=(2, *edges))).float(),
        "label": torch.from_numpy(rng.integers(0, rng.integers(1, 4), (1, *edges), dtype=np.uint8)),
    }
    before = {name: voxels.clone() for name, voxels in given_.items()}
    given_["indices"] = where(given_["label"], 3)
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
    theirs: Any = SpatialPadd(("image", "label"), size)(crop.set_random_state(seed)(given_)[0])
    ours = PatchSampler(size, shares)(**given_, seed=seed)
    for name in ("image", "label"):
        assert ours[name].dtype == given_[name].dtype
        assert torch.equal(ours[name], torch.as_tensor(theirs[name]))
        ours[name].fill_(7)  # which must not reach the case, whose file it may be
        assert torch.equal(given_[name], before[name])


def test_a_case_without_what_patches_are_centred_on_is_cut_anywhere() -> None:
    label = torch.zeros(1, 9, 8, 7, dtype=torch.uint8)
    cut = PatchSampler((3, 3, 3), [0.0, 1.0])
    places = torch.arange(label.numel()).reshape(label.shape)
    found = {
        int(cut(places.float(), label, where(label, 2), seed)["image"].min()) for seed in range(50)
    }
    assert len(found) > 20


@settings(deadline=None)
@given(edges=st.tuples(*[st.integers(2, 9)] * 3), seed=st.integers(0, 999))
def test_a_patch_is_blurred_as_monai_blurs_it(edges: tuple, seed: int) -> None:
    image, sigma = torch.randn(2, *edges, generator=torch.Generator().manual_seed(seed)), (0.5, 1.0)
    ours = RandBlurd(1.0, sigma).set_random_state(seed)({"image": image})["image"]
    theirs = RandGaussianSmoothd("image", sigma, sigma, sigma, prob=1).set_random_state(seed)(
        {"image": image}
    )
    assert torch.allclose(ours, torch.as_tensor(theirs["image"]), atol=1e-5)


def test_a_slice_is_blurred_in_its_plane_only() -> None:
    """Across it there is nothing but the 0 that is thought outside, which would darken it."""
    flat = RandBlurd(1.0, (0.5, 1.0)).set_random_state(0)({"image": torch.ones(1, 30, 1, 30)})[
        "image"
    ]
    assert torch.allclose(flat[:, 8:-8, :, 8:-8], torch.ones(()), atol=1e-3)


def test_a_patch_depends_on_its_number_alone(tmp_path: Path) -> None:
    options = composed("model.channels=[4,8]", "augment=strong", f"data.cache={tmp_path / 'cache'}")
    cases = [case(tmp_path, seed) for seed in range(3)]
    first = [Patches(cases, plan(), options)[number]["image"] for number in range(6)]
    again = Patches(cases, plan(), options)
    for number in (5, 0, 3):
        assert torch.equal(again[number]["image"], first[number])
    assert not torch.equal(first[0], first[3])


def test_a_batch_augmented_where_the_network_is_equals_one_that_the_workers_made(
    tmp_path: Path,
) -> None:
    options = composed("model.channels=[4,8]", "augment=strong", f"data.cache={tmp_path / 'cache'}")
    cases, made = [case(tmp_path, seed) for seed in range(2)], plan("plan.patch=[8,8,8]")
    ready, cut = Patches(cases, made, options), Patches(cases, made, options, augmented=False)
    batch = default_collate([cut[number] for number in range(4)])
    assert batch["image"].shape[2:] == (10, 10, 10)  # with a margin, to be turned
    changed = augment_batch(make_augmentation(made, options.augment), batch)
    for number in range(4):
        assert torch.equal(changed["image"][number], ready[number]["image"])
        assert torch.equal(changed["label"][number], ready[number]["label"])


def test_coarse_slices_are_turned_in_their_plane_only() -> None:
    """As for a 2D network: a slice that holds its own number still holds nothing else after rotation."""
    options = composed(
        "model.channels=[4,8]", "augment=strong", "augment.elastic=0", "augment.affine=1"
    )
    label = (
        torch.arange(8, dtype=torch.uint8)[None, None, None, :].expand(1, 32, 32, 8).contiguous()
    )
    names = {f"label {number}": number for number in range(8)}
    made = make_plan(options, fingerprint((1.0, 1.0, 5.0), (32, 32, 8)), ["MRI"], names, "cpu")
    given_ = {"image": label.float(), "label": label, "indices": where(label, 8)}
    for seed in range(10):
        patch = cut_and_change(made, 0.5, options.augment, given_, seed)["label"]
        for z in range(patch.shape[3]):
            assert len(set(patch[..., z].unique().tolist()) - {0}) <= 1


def test_slices_are_turned_in_their_plane_only() -> None:
    """A slice that holds its own number still holds nothing else after rotation."""
    options = composed("model=unet2d", "model.channels=[4,8]", "augment=strong")
    label = (
        torch.arange(10, dtype=torch.uint8)[None, None, :, None].expand(1, 30, 10, 30).contiguous()
    )
    names = {f"label {number}": number for number in range(10)}
    made = make_plan(options, fingerprint((1.0, 5.0, 1.0), (30, 10, 30)), ["MRI"], names, "cpu")
    assert made.slice_axis == 1
    given_ = {"image": label.float(), "label": label, "indices": where(label, 10)}
    for seed in range(20):
        patch = cut_and_change(made, 0.5, options.augment, given_, seed)
        assert patch["label"].shape == (1, made.patch[0], 1, made.patch[2])
        assert len(set(patch["label"].unique().tolist()) - {0}) <= 1


def test_the_fingerprint_is_of_the_training_cases_alone(tmp_path: Path) -> None:
    cases = [case(tmp_path, seed) for seed in range(3)]
    done: list[int] = []
    seen = inspect_cases(cases[:2], cases[2:], None, None, lambda: done.append(1))
    found = look(seen[:2])
    assert found.shapes.tolist() == [[20, 16, 12]] * 2
    assert (len(found.zero_fraction), len(found.foreground), len(done)) == (1, 1, 3)
    assert label_ids(seen, None) == {"background": 0, "label 1": 1, "label 2": 2, "label 4": 4}
    assert label_ids(seen, LABELS) == LABELS
    with pytest.raises(DataError, match="no voxel of any of the 1 label maps is labelled"):
        label_ids(inspect_cases([case(tmp_path, 9, ids=(0,))], [], None, None, lambda: None), None)


def test_a_cpu_that_trains_cuts_its_own_patches() -> None:
    usual, given_ = composed().data.workers, composed("data.workers=3").data.workers
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert (count_workers(usual, cpu), count_workers(given_, cpu), count_workers(given_, gpu)) == (
        0,
        3,
        3,
    )
    assert 0 <= count_workers(usual, gpu) <= 8


def test_cases_stay_open_only_while_they_are_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, options = (
        [case(tmp_path, seed) for seed in range(2)],
        composed(f"data.cache={tmp_path / 'cache'}"),
    )
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
