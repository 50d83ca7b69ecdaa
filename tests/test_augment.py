"""Augmentation: what moves moves both, what changes intensities changes the image alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms.intensity.dictionary import RandAdjustContrastd, RandGaussianSmoothd
from support.config import composed
from support.patches import cut_and_augment, voxel_indices
from support.plans import case, fingerprint, plan
from torch.utils.data import default_collate

from segpipe.data.acquisition import RandBiasFieldd, RandGhostd, RandMissingChanneld
from segpipe.data.augment import UNCHANGED, Augmentation, make_augmentation
from segpipe.data.intensity import RandBlurd, RandColourd, RandGammad, RandNoised
from segpipe.data.patches import Patches, augment_batch
from segpipe.planning.rules import make_plan
from segpipe.registry import AUGMENTATIONS


@pytest.mark.parametrize("name", AUGMENTATIONS.names())
def test_a_registered_augmentation_changes_the_image_alone(name: str) -> None:
    rng = torch.Generator().manual_seed(0)
    patch = {
        "image": torch.rand(5, 12, 12, 12, generator=rng),
        "label": torch.randint(0, 3, (1, 12, 12, 12), generator=rng, dtype=torch.uint8),
    }
    before = patch["image"].clone()
    augmentation = Augmentation([AUGMENTATIONS[name](1.0)])
    changed = augmentation(patch, 3)
    assert changed["image"].shape == before.shape
    assert not torch.allclose(changed["image"], before)
    assert torch.equal(patch["image"], before)
    assert torch.equal(changed["label"], patch["label"])
    assert torch.equal(augmentation(patch, 3)["image"], changed["image"])
    others = [augmentation(patch, seed)["image"] for seed in (4, 5, 6)]
    assert not all(torch.equal(other, changed["image"]) for other in others)


@pytest.mark.parametrize("name", AUGMENTATIONS.names())
def test_an_augmentation_of_probability_0_changes_nothing(name: str) -> None:
    patch = {
        "image": torch.rand(1, 8, 8, 8, generator=torch.Generator().manual_seed(0)),
        "label": torch.zeros(1, 8, 8, 8, dtype=torch.uint8),
    }
    assert torch.equal(Augmentation([AUGMENTATIONS[name](0.0)])(patch, 3)["image"], patch["image"])


def test_the_order_of_the_built_in_augmentations_is_kept() -> None:
    """They draw from one stream: another order would give other patches for the same seed."""
    assert list(AUGMENTATIONS)[:6] == [
        "noise",
        "blur",
        "brightness",
        "contrast",
        "low_resolution",
        "gamma",
    ]


@pytest.mark.parametrize("choice", ["none", "light", "standard", "strong"])
def test_image_and_label_move_together(tmp_path: Path, choice: str) -> None:
    """The image is the label map, so what moves both keeps them equal but for interpolation."""
    still = [f"augment.{name}=0" for name in AUGMENTATIONS]
    options = composed(f"augment={choice}", "augment.mirror_axes=[0,1,2]", *still)
    label = torch.zeros(1, 40, 40, 40, dtype=torch.uint8)
    label[:, 8:30, 10:26, 12:34] = 1
    planned = plan("plan.patch=[24,24,24]", labels={"background": 0, "organ": 1})
    prepared = {"image": label.float(), "label": label, "indices": voxel_indices(label, 2)}
    for seed in range(8):
        patch = cut_and_augment(planned, 0.5, options.augment, prepared, seed)
        assert patch["image"].shape == patch["label"].shape == (1, 24, 24, 24)
        agree = ((patch["image"] > 0.5) == (patch["label"] > 0)).float().mean()
        assert agree > (0.999 if choice == "none" else 0.97)


@settings(deadline=None)
@given(edges=st.tuples(*[st.integers(2, 9)] * 3), seed=st.integers(0, 999))
def test_a_patch_is_blurred_as_monai_blurs_it(edges: tuple, seed: int) -> None:
    image = torch.randn(2, *edges, generator=torch.Generator().manual_seed(seed))
    sigma = (0.5, 1.0)
    ours = RandBlurd(1.0, sigma).set_random_state(seed)
    monai = RandGaussianSmoothd("image", sigma, sigma, sigma, prob=1).set_random_state(seed)
    expected = torch.as_tensor(monai({"image": image})["image"])
    assert torch.allclose(ours({"image": image})["image"], expected, atol=1e-5)


def test_a_slice_is_blurred_in_its_plane_only() -> None:
    """Across it lies only the padding of 0, which would darken it."""
    blur = RandBlurd(1.0, (0.5, 1.0)).set_random_state(0)
    blurred = blur({"image": torch.ones(1, 30, 1, 30)})["image"]
    assert torch.allclose(blurred[:, 8:-8, :, 8:-8], torch.ones(()), atol=1e-3)


def test_a_batch_augmented_where_the_network_is_equals_one_that_the_workers_made(
    tmp_path: Path,
) -> None:
    options = composed("model.channels=[4,8]", "augment=strong", f"data.cache={tmp_path / 'cache'}")
    cases = [case(tmp_path, seed) for seed in range(2)]
    planned = plan("plan.patch=[8,8,8]")
    ready = Patches(cases, planned, options)
    cut = Patches(cases, planned, options, augmented=False)
    batch = default_collate([cut[number] for number in range(4)])
    assert batch["image"].shape[2:] == (10, 10, 10)  # with a margin, to be rotated
    changed = augment_batch(make_augmentation(planned, options.augment), batch)
    for number in range(4):
        assert torch.equal(changed["image"][number], ready[number]["image"])
        assert torch.equal(changed["label"][number], ready[number]["label"])


def test_coarse_slices_are_rotated_in_their_plane_only() -> None:
    """A slice that holds its own number still holds nothing else after rotation."""
    options = composed(
        "model.channels=[4,8]", "augment=strong", "augment.elastic=0", "augment.affine=1"
    )
    label = (
        torch.arange(8, dtype=torch.uint8)[None, None, None, :].expand(1, 32, 32, 8).contiguous()
    )
    names = {f"label {number}": number for number in range(8)}
    planned = make_plan(options, fingerprint((1.0, 1.0, 5.0), (32, 32, 8)), ["MRI"], names, "cpu")
    prepared = {"image": label.float(), "label": label, "indices": voxel_indices(label, 8)}
    for seed in range(10):
        patch = cut_and_augment(planned, 0.5, options.augment, prepared, seed)["label"]
        for z in range(patch.shape[3]):
            assert len(set(patch[..., z].unique().tolist()) - {0}) <= 1


def test_slices_are_rotated_in_their_plane_only() -> None:
    """A slice that holds its own number still holds nothing else after rotation."""
    options = composed("model=unet2d", "model.channels=[4,8]", "augment=strong")
    label = (
        torch.arange(10, dtype=torch.uint8)[None, None, :, None].expand(1, 30, 10, 30).contiguous()
    )
    names = {f"label {number}": number for number in range(10)}
    planned = make_plan(options, fingerprint((1.0, 5.0, 1.0), (30, 10, 30)), ["MRI"], names, "cpu")
    assert planned.slice_axis == 1
    prepared = {"image": label.float(), "label": label, "indices": voxel_indices(label, 10)}
    for seed in range(20):
        patch = cut_and_augment(planned, 0.5, options.augment, prepared, seed)
        assert patch["label"].shape == (1, planned.patch[0], 1, planned.patch[2])
        assert len(set(patch["label"].unique().tolist()) - {0}) <= 1


def test_noise_is_as_often_and_as_strong_as_requested() -> None:
    still = {
        "image": torch.zeros(1, 20, 20, 20),
        "label": torch.zeros(1, 20, 20, 20, dtype=torch.uint8),
    }
    noisy = RandNoised(0.4, 0.3)
    noisy.set_random_state(0)
    strengths = np.array([float(noisy(still)["image"].std()) for _ in range(400)])
    assert np.mean(strengths > 0) == pytest.approx(0.4, abs=0.08)
    assert strengths.max() == pytest.approx(0.3, abs=0.02)
    assert strengths[strengths > 0].mean() == pytest.approx(0.15, abs=0.03)
    assert not still["image"].any()
    noisy.set_random_state(0)
    assert float(noisy(still)["image"].std()) == strengths[0]


@pytest.mark.parametrize("seed", range(6))
def test_a_gamma_curve_is_that_of_monai(seed: int) -> None:
    image = torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(seed))
    patch = {"image": image, "label": torch.zeros(1, 6, 5, 4)}
    ours = Augmentation([RandGammad(0.6, (0.7, 1.5))])
    theirs = Augmentation([RandAdjustContrastd("image", 0.6, (0.7, 1.5), retain_stats=True)])
    expected = torch.as_tensor(theirs(patch, seed)["image"])
    assert torch.equal(ours(patch, seed)["image"], expected)


@pytest.mark.parametrize("choice", ["light", "strong", "none"])
@pytest.mark.parametrize(
    "size", ["model=unet3d plan.patch=[12,10,8]", "model=unet2d plan.patch=[16,12]"]
)
def test_a_batch_is_augmented_as_each_of_its_patches_is(choice: str, size: str) -> None:
    words = [f"augment={choice}", *size.split()]
    planned = plan(*words)
    augmentation = make_augmentation(planned, composed(*words).augment)
    cut = [edge + 3 if edge > 1 and choice != "none" else edge for edge in planned.patch]
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(24, 2, *cut, generator=rng)
    labels = torch.randint(0, 4, (24, 1, *cut), generator=rng, dtype=torch.uint8)
    found = augmentation.batch(images, labels, range(24))
    assert found[0].shape == (24, 2, *planned.patch)
    for seed in range(24):
        alone = augmentation({"image": images[seed], "label": labels[seed]}, seed)
        torch.testing.assert_close(found[0][seed], alone["image"])
        assert torch.equal(found[1][seed], alone["label"])


def test_a_patch_without_a_seed_is_the_middle_of_its_cut() -> None:
    words = ["augment=strong", "model=unet3d", "plan.patch=[12,10,8]"]
    augmentation = make_augmentation(plan(*words), composed(*words).augment)
    images = torch.randn(2, 1, 14, 12, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, 1, 14, 12, 10, dtype=torch.uint8)
    found, _ = augmentation.batch(images, labels, [UNCHANGED, 5])
    assert torch.equal(found[0], images[0, :, 1:13, 1:11, 1:9])
    alone = augmentation({"image": images[1], "label": labels[1]}, 5)
    assert torch.equal(found[1], alone["image"])


def test_a_bias_field_is_smooth_and_keeps_mean_and_deviation() -> None:
    image = torch.rand(2, 20, 16, 12, generator=torch.Generator().manual_seed(0)) + 1
    image[:, 0, 0, 0] = 0  # air
    changed = Augmentation([RandBiasFieldd(1.0, 0.3)])({"image": image, "label": image}, 3)["image"]
    for axis_function in (torch.mean, torch.std):
        torch.testing.assert_close(
            axis_function(changed, (1, 2, 3)), axis_function(image, (1, 2, 3))
        )
    # what is multiplied is the distance from air, so the field is the ratio of distances
    field = (changed - changed[:, :1, :1, :1]) / image
    field = field[0] / field[0, 10, 8, 6]
    field = field[1:, 1:, 1:].log()
    steps = (field[1:] - field[:-1]).abs()
    assert 0.01 < steps.max() < 0.2


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_ghosts_are_copies_at_equal_distances(axis: int) -> None:
    """Of 4 copies on 12 voxels each is 3 voxels from the next; the mean stays."""
    shape = [1, 1, 1, 1]
    shape[axis] = 12
    image = torch.zeros(shape)
    image.view(-1)[2] = 1.0
    ghosts = Augmentation([RandGhostd(1.0, (4, 4), (0.5, 0.5))])
    line = ghosts({"image": image, "label": image}, 0)["image"].view(-1)
    shown = (line - line.median()).abs() > 0.05
    assert shown.nonzero().ravel().tolist() == [2, 5, 8, 11]
    torch.testing.assert_close(line.mean(), image.mean())
    assert line[2] == line.max()


def test_one_channel_of_several_is_missing() -> None:
    image = torch.rand(3, 4, 4, 4, generator=torch.Generator().manual_seed(0)) + 1
    missing = Augmentation([RandMissingChanneld(1.0)])
    found = set()
    for seed in range(20):
        changed = missing({"image": image, "label": image}, seed)["image"]
        gone = changed.flatten(1).eq(0).all(1)
        assert gone.sum() == 1
        assert torch.equal(changed[~gone], image[~gone])
        found |= set(gone.nonzero().ravel().tolist())
    assert found == {0, 1, 2}
    alone = missing({"image": image[:1], "label": image}, 0)["image"]
    assert torch.equal(alone, image[:1])


def test_colours_are_mixed_and_shifted_within_bounds() -> None:
    """Each channel is a sum of all and a constant, the same in every voxel."""
    image = torch.rand(3, 6, 5, 1, generator=torch.Generator().manual_seed(0))
    recolour = Augmentation([RandColourd(1.0, 0.25)])
    channels = torch.cat([image.flatten(1), torch.ones(1, 30)])
    largest = torch.zeros(3, 4)
    for seed in range(20):
        changed = recolour({"image": image, "label": image}, seed)["image"].flatten(1)
        shares = torch.linalg.lstsq(channels.T, changed.T).solution.T
        torch.testing.assert_close(shares @ channels, changed)
        shares[:, :3] -= torch.eye(3)
        shares[:, 3] /= image.flatten(1).std(1)
        largest = largest.maximum(shares.abs())
    assert largest.max() < 0.2501
    assert largest.min() > 0.15  # each channel takes from each, itself too, and is shifted
    alone = recolour({"image": image[:1], "label": image}, 0)["image"]
    assert torch.equal(alone, image[:1])
