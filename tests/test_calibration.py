"""Temperature scaling: learnt on some cases, judged on others, and no mask depends on it."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from support.checkpoints import write_checkpoint
from support.plans import plan

from segpipe import checkpoint
from segpipe.batch import predict_batch
from segpipe.calibration import tempered
from segpipe.config.compose import defaults
from segpipe.config.predict import Predict
from segpipe.config.validation import validate
from segpipe.geometry import Grid, ModelSpace
from segpipe.mask_pairs import IGNORED
from segpipe.postprocess import PostProcess
from segpipe.prediction.maps import Maps
from segpipe.prediction.opening import mask_settings, open_predictor
from segpipe.training.calibration import (
    Voxels,
    best_temperature,
    calibrate,
    reliability,
    voxels_of,
)

LABELS = {"background": 0, "organ": 1, "vessel": 2}


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_probabilities_are_those_of_divided_logits(temperature: float) -> None:
    logits = 2 * torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).double()
    exclusive = torch.stack(list(tempered(list(logits.softmax(0)), temperature, True)))
    assert torch.allclose(exclusive, (logits / temperature).softmax(0), atol=1e-9)
    regions = torch.stack(list(tempered(list(logits.sigmoid()), temperature, False)))
    assert torch.allclose(regions, (logits / temperature).sigmoid(), atol=1e-6)


@pytest.mark.parametrize("exclusive", [True, False])
def test_maps_are_tempered_and_labels_stay(exclusive: bool) -> None:
    """The scan is finer than model space and lies otherwise, and comes in slabs."""
    noise = 3 * torch.randn(3, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    probabilities = noise.softmax(0) if exclusive else noise.sigmoid()
    grid = Grid((12, 5, 8), np.diag([-1.0, 1.0, -1.0, 1.0]))
    space = ModelSpace((2.0, 1.0, 2.0))
    ids = None if exclusive else [1, 2, 3]
    both = ["probabilities", "entropy"]
    plain = Maps(grid, 0, 3, exclusive, both)
    tempered_maps = Maps(grid, 0, 3, exclusive, both, temperature=2.0)
    expected = space.to_native([probabilities], 0, grid, ids, plain.observe)
    labels = space.to_native(
        iter(probabilities.split([1, 3, 2], 1)), 0, grid, ids, tempered_maps.observe, 40
    )
    assert torch.equal(labels, expected)
    assert plain.probabilities is not None
    assert tempered_maps.probabilities is not None
    whole = torch.from_numpy(plain.probabilities / 255).moveaxis(3, 0)
    wanted = torch.stack(list(tempered(list(whole), 2.0, exclusive))).moveaxis(0, 3).numpy()
    found = tempered_maps.probabilities / 255
    certain = (plain.probabilities > 25) & (plain.probabilities < 230)  # 1/255 moves others far
    assert np.abs(found - wanted)[certain].max() < 0.02
    assert plain.entropy is not None
    assert tempered_maps.entropy is not None
    assert tempered_maps.entropy.mean() > plain.entropy.mean() + 10
    assert (plain.block_voxels, tempered_maps.block_voxels) == (None, 2**24 // 3)


def test_a_sample_holds_voxels_of_the_scan_with_their_truth() -> None:
    """The truth is what the network finds most probable, so that each voxel must agree."""
    noise = torch.randn(3, 9, 8, 7, generator=torch.Generator().manual_seed(0))
    grid = Grid((9, 8, 7), np.diag([-1.0, 1.0, -1.0, 1.0]))
    maps = Maps(grid, 1, 3, True, ["sample"])
    assert maps.sample is not None
    maps.sample.stride = 4
    space = ModelSpace((None, None, None))
    labels = space.to_native(iter(noise.softmax(0).split([3, 5], 2)), 1, grid, None, maps.observe)
    truth = labels[0].numpy()
    truth[:2] = IGNORED
    voxels = voxels_of(maps.sample, truth, plan(labels=LABELS))
    assert 50 < len(voxels.truth) < 9 * 8 * 7 / 4
    assert np.array_equal(voxels.truth.argmax(1), voxels.probabilities.argmax(1))


def drawn(number: int, seed: int, sharpness: float, exclusive: bool) -> Voxels:
    """Return voxels whose logits are `sharpness` times those that the truth is drawn from."""
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(number, 3, generator=rng)
    if exclusive:
        ids = torch.multinomial(logits.softmax(1), 1, generator=rng)
        truth = ids.numpy() == np.arange(3)
        return Voxels((logits * sharpness).softmax(1).numpy(), truth)
    truth = (torch.rand(number, 3, generator=rng) < logits.sigmoid()).numpy()
    return Voxels((logits * sharpness).sigmoid().numpy(), truth)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("sharpness", [0.5, 2.5])
def test_the_temperature_is_found_and_judged_on_other_cases(
    sharpness: float, exclusive: bool
) -> None:
    cases = [drawn(1500, seed, sharpness, exclusive) for seed in range(6)]
    assert best_temperature(cases[0], exclusive) == pytest.approx(sharpness, rel=0.15)
    found = calibrate(cases, exclusive)
    assert found is not None
    assert found.temperature == pytest.approx(sharpness, rel=0.06)
    assert found.after.ece < 0.02 < found.before.ece
    assert (found.voxels, found.cases) == (9000, 6)


def test_what_is_calibrated_stays_as_it_is() -> None:
    found = calibrate([drawn(3000, seed, 1.0, True) for seed in range(4)], True)
    assert found is not None
    assert found.temperature == 1
    assert calibrate([drawn(10, 0, 1.0, True)], True) is None


def test_the_error_is_the_mean_over_bins() -> None:
    voxels = drawn(400, 0, 2.0, True)
    found = reliability(voxels, True)
    expected = 0.0
    for number in range(15):
        inside = []
        for probabilities, truth in zip(voxels.probabilities, voxels.truth, strict=True):
            if number / 15 <= probabilities.max() < (number + 1) / 15:
                inside.append((probabilities.max(), truth[probabilities.argmax()]))
        if inside:
            confidence, right = np.mean(inside, axis=0)
            expected += len(inside) / 400 * abs(confidence - right)
    assert found.ece == pytest.approx(expected, rel=1e-5)
    assert sum(found.share) == pytest.approx(1)


def test_predict_saves_tempered_maps_and_the_same_masks(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "best.ckpt")
    voxels = np.random.default_rng(0).normal(size=(20, 16, 8)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([1, 1, 2, 1])), tmp_path / "scan.nii.gz")

    def options(**changed: Any) -> Predict:
        values = defaults("predict") | {"checkpoint": str(file), "device": "cpu"}
        values |= {"input": str(tmp_path / "scan.nii.gz"), "output": str(tmp_path / "masks")}
        return validate(
            Predict, values | {"overlays": False, "save": ["mask", "entropy"]} | changed
        )

    def predicted(**changed: Any) -> tuple[np.ndarray, float]:
        assert predict_batch(options(**changed)) == 0
        mask = nib.Nifti1Image.from_filename(tmp_path / "masks/scan.nii.gz")
        entropy = nib.Nifti1Image.from_filename(tmp_path / "masks/entropy/scan.nii.gz")
        return np.asarray(mask.dataobj), float(np.asarray(entropy.dataobj).mean())

    mask, entropy = predicted()
    checkpoint.amend(file, postprocess=PostProcess(temperature=0.1).model_dump())
    sharper = predicted()
    assert np.array_equal(mask, sharper[0])
    assert sharper[1] < entropy - 0.02
    assert predicted(postprocess="none")[1] == pytest.approx(entropy)
    assert predicted(temperature=1.0)[1] == pytest.approx(entropy)


def test_masks_of_before_there_were_temperatures_count_as_made_alike(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "best.ckpt")
    checkpoint.amend(file, postprocess={"thresholds": {"organ": 0.4}})
    values = defaults("predict") | {"checkpoint": str(file), "device": "cpu"}
    options = validate(Predict, values | {"input": "x", "output": str(tmp_path)})
    stored = {"thresholds": {"organ": 0.4}, "keep_largest": [], "min_volume_ml": {}}
    assert mask_settings(options, open_predictor(options)[0])[-1] == stored
