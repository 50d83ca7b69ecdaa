"""Post-processing that a training chooses: only where it helps, stored, applied, switched off."""

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
from segpipe.config.compose import defaults
from segpipe.config.predict import Predict
from segpipe.config.validation import validate
from segpipe.data.prepare import PreparedScan
from segpipe.errors import ConfigError
from segpipe.geometry import Grid, Volume
from segpipe.metrics import IGNORED, dice_per_target, score_case
from segpipe.plan import Plan
from segpipe.postprocess import PostProcess
from segpipe.prediction.maps import Maps
from segpipe.prediction.postprocessing import clean, threshold_factors
from segpipe.prediction.prediction import Prediction
from segpipe.prediction.predictor import Predictor
from segpipe.resampling import most_probable
from segpipe.training.evidence import Evidence, gather
from segpipe.training.postprocess_choice import (
    choose_removals,
    choose_thresholds,
    mean_dice_with,
    store,
)
from segpipe.units import UNITS

LABELS = {"background": 0, "organ": 1, "vessel": 2}
REGIONS = "data.regions={both:[1,2],vessel:[2]}"
GRID = Grid((12, 10, 8), np.diag([1.0, 2.0, 2.5, 1.0]))  # 5 mm3 a voxel
OLD = Path(__file__).parent / "stored/0.1.0/run"


def made(*overrides: str) -> Plan:
    return plan(*overrides, labels=LABELS)


def evidence(
    prediction: np.ndarray, truth: np.ndarray, of: Plan, probabilities: np.ndarray | None = None
) -> Evidence:
    maps = Maps(GRID, 0, of.outputs, of.regions is None, [])
    maps.probabilities = probabilities
    image = torch.zeros(1, *GRID.shape)
    found = Prediction(prediction, PreparedScan(image, Volume(image, GRID.affine)), maps)
    scores = score_case("case", prediction, truth, GRID.spacing_mm, of.targets)
    return gather("case", found, truth, scores, of)


def organ(*extra: tuple[int, int, int], parts: int = 1) -> np.ndarray:
    """Return a mask with an organ of 48 voxels a part, and single voxels of it elsewhere."""
    mask = np.zeros(GRID.shape, np.uint8)
    mask[1:5, 1:4, 1:5] = 1
    if parts > 1:
        mask[7:11, 1:4, 1:5] = 1
    for voxel in extra:
        mask[voxel] = 1
    return mask


@pytest.mark.parametrize("regions", [[], [REGIONS]])
@pytest.mark.parametrize(("seed", "least"), [(0, 0), (1, 2), (2, 4)])
def test_dice_without_a_mask_is_that_of_the_cleaned_mask(
    regions: list[str], seed: int, least: int
) -> None:
    rng = np.random.default_rng(seed)
    of = made(*regions)
    prediction = rng.choice(3, GRID.shape, p=[0.8, 0.1, 0.1]).astype(np.uint8)
    truth = rng.choice([0, 1, 2, IGNORED], GRID.shape, p=[0.6, 0.2, 0.1, 0.1]).astype(np.uint8)
    volume_ml = least * GRID.voxel_ml
    removals = PostProcess(keep_largest=["organ"], min_volume_ml={"vessel": volume_ml})
    cleaned = clean(prediction, GRID.voxel_ml, [1], {2: volume_ml})
    expected = np.nanmean(dice_per_target(cleaned, truth, of.targets))
    found = mean_dice_with([evidence(prediction, truth, of)], of, removals)
    assert found == pytest.approx(float(expected))


@pytest.mark.parametrize("regions", [[], [REGIONS]])
@pytest.mark.parametrize("threshold", [0.3, 0.65])
def test_a_histogram_knows_the_dice_under_a_threshold(regions: list[str], threshold: float) -> None:
    of = made(*regions)
    rng = np.random.default_rng(3)
    values = torch.from_numpy(rng.normal(0, 2, (of.outputs, *GRID.shape))).float()
    shares = torch.sigmoid(values) if of.regions else torch.softmax(values, 0)
    stored = (shares * 255).round().byte().permute(1, 2, 3, 0).numpy()
    truth = rng.integers(0, 3, GRID.shape).astype(np.uint8)
    found = evidence(truth, truth, of, stored)
    _, trials = choose_thresholds([found])
    gain = {(trial.label, trial.value): trial.gain for trial in trials}
    for index, name in enumerate(of.targets):
        dice = []
        for given_threshold in (0.5, threshold):
            factors = threshold_factors(of, {name: given_threshold})
            scaled = [share * factor for share, factor in zip(shares, factors, strict=True)]
            if of.regions:
                mask = (scaled[index] > 0.5).numpy()
            else:
                mask = most_probable(scaled, None).numpy() == index + 1
            true = np.isin(truth, of.targets[name])
            dice.append(2 * (mask & true).sum() / (mask.sum() + true.sum()))
        assert gain[name, threshold] == pytest.approx(dice[1] - dice[0], abs=0.01)


def test_of_two_labels_the_one_above_its_threshold_wins() -> None:
    of = plan(labels={"background": 0, "organ": 1})
    share = torch.linspace(0.01, 0.99, 50).reshape(1, 1, 50)
    factors = threshold_factors(of, {"organ": 0.3})
    scaled = [(1 - share) * factors[0], share * factors[1]]
    assert torch.equal(most_probable(scaled, None) == 1, share > 0.3)
    with pytest.raises(ConfigError, match="thresholds: orgam is none of organ. Did you mean"):
        threshold_factors(of, {"orgam": 0.3})


def test_the_largest_part_is_kept_where_the_rest_is_wrong_in_most_cases() -> None:
    of = made()
    wrong = [(11, 9, 7), (9, 8, 7)]
    cases = [evidence(organ(*wrong), organ(), of)] * 6 + [evidence(organ(), organ(), of)]
    chosen, trials = choose_removals(cases, of)
    assert chosen.keep_largest == ["organ"]
    assert [trial.what for trial in trials if trial.taken] == ["keep_largest"]
    assert mean_dice_with(cases, of, chosen) == 1


def test_nothing_is_chosen_of_few_cases_or_a_small_gain_or_against_the_truth() -> None:
    of = made()
    wrong = evidence(organ((11, 9, 7), (9, 8, 7)), organ(), of)
    right = evidence(organ(), organ(), of)
    two = evidence(organ(parts=2), organ(parts=2), of)
    assert choose_removals([wrong] * 4, of)[0] == PostProcess(), "too few"
    assert choose_removals([wrong] * 4 + [right] * 9, of)[0] == PostProcess(), "too few change"
    assert choose_removals([two] * 9, of)[0] == PostProcess(), "the truth has two parts"
    assert choose_removals([wrong] * 5 + [two] * 3, of)[0].keep_largest == [], "3 of 8 are worse"


def test_small_parts_go_where_the_truth_has_several_large_ones() -> None:
    of = made()
    case = evidence(organ((11, 9, 7), (9, 8, 7), parts=2), organ(parts=2), of)
    chosen, _ = choose_removals([case] * 6, of)
    assert chosen.keep_largest == []
    assert chosen.min_volume_ml["organ"] > GRID.voxel_ml
    assert mean_dice_with([case] * 6, of, chosen) == 1


def test_the_largest_part_is_kept_where_only_the_distance_improves() -> None:
    """One voxel in 385 costs less Dice than is worth a choice, but lies far away."""
    of = made()
    truth = np.zeros(GRID.shape, np.uint8)
    truth[:8, :8, :6] = 1
    prediction = truth.copy()
    prediction[10:, 9, 7] = 1
    prediction[0, 0, :] = 1
    prediction[11, 0, :6] = 1
    case = evidence(prediction, truth, of)
    small = truth.copy()
    small[11, 9, 7] = 1
    few = evidence(small, truth, of)
    assert choose_removals([few] * 6, of)[0] == PostProcess(), (
        "one voxel changes no 95th percentile"
    )
    near = choose_removals([case] * 6, of)
    assert near[0].keep_largest == ["organ"]


def test_a_threshold_is_chosen_where_a_label_is_found_too_rarely() -> None:
    of = plan(labels={"background": 0, "organ": 1})
    shares = np.zeros((*GRID.shape, 2), np.uint8)
    shares[..., 0] = 250
    shares[1:5, 1:4, 1:5] = (150, 105)  # 0.41 for the organ
    shares[1:5, 1:4, 1:3] = (50, 205)
    prediction = (shares[..., 1] > shares[..., 0]).astype(np.uint8)
    case = evidence(prediction, organ(), of, shares)
    thresholds, trials = choose_thresholds([case] * 8)
    assert thresholds == {"organ": 0.4} or thresholds["organ"] < 0.41
    assert [trial.gain for trial in trials if trial.taken] == [pytest.approx(1 / 3)]
    assert choose_thresholds([case] * 7)[0] == {}, "one of eight thresholds may win by chance"


def test_it_is_stored_in_the_checkpoint_and_old_ones_have_none(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "best.ckpt")
    before = checkpoint.load(file)
    chosen = PostProcess(thresholds={"organ": 0.4}, keep_largest=["organ"])
    store(file, chosen)
    after = checkpoint.load(file)
    assert (before.postprocess, after.postprocess) == (PostProcess(), chosen)
    for name, weight in before.network.state_dict().items():
        assert torch.equal(weight, after.network.state_dict()[name])
    assert list(tmp_path.iterdir()) == [file]
    assert checkpoint.load(OLD).postprocess == PostProcess()


def test_a_hostile_choice_is_one_line(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "best.ckpt")
    content = torch.load(file, weights_only=True)
    content[checkpoint.KEY]["postprocess"] = {"thresholds": {"organ": 0}}
    torch.save(content, file)
    with pytest.raises(ConfigError, match="is not what segpipe writes"):
        checkpoint.load(file)


def test_the_mean_of_networks_takes_medians_and_majorities() -> None:
    first = PostProcess(thresholds={"a": 0.3}, keep_largest=["a", "b"], min_volume_ml={"a": 1.0})
    second = PostProcess(thresholds={"a": 0.4, "b": 0.6}, keep_largest=["a"])
    third = PostProcess(min_volume_ml={"a": 3.0})
    assert PostProcess.merge([first, second, third]) == PostProcess(
        thresholds={"a": 0.4}, keep_largest=["a"], min_volume_ml={"a": 1.0}
    )
    assert PostProcess.merge([first]) == first


def test_of_images_without_millimetres_it_speaks_of_pixels() -> None:
    chosen = PostProcess(min_volume_ml={"cell": 0.0125})
    assert chosen.line(UNITS["mm"]) == "no part of cell below 0.0125 mL"
    assert chosen.line(UNITS["px2"]) == "no part of cell below 12.5 px²"
    assert PostProcess().line(UNITS["px2"]) == "none"


def test_predict_applies_what_is_stored_unless_told_otherwise(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "best.ckpt")
    voxels = np.random.default_rng(0).normal(size=(20, 16, 8)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([1, 1, 2, 1])), tmp_path / "scan.nii.gz")

    def mask(**changed: Any) -> np.ndarray:
        values = defaults("predict") | {"checkpoint": str(file), "device": "cpu"}
        values |= {"input": str(tmp_path / "scan.nii.gz"), "output": str(tmp_path / "masks")}
        options = validate(Predict, values | {"overlays": False} | changed)
        assert predict_batch(options) == 0
        return np.asarray(nib.load(tmp_path / "masks/scan.nii.gz").dataobj)

    plain = mask()
    largest = clean(plain, 0.002, [1])
    assert 0 < largest.sum() < plain.sum(), "there is something to remove"
    store(file, PostProcess(keep_largest=["organ"]))
    assert np.array_equal(mask(), largest)
    assert np.array_equal(mask(postprocess="none"), plain)
    assert np.array_equal(mask(), largest), "masks of another setting are made again"
    program = Predictor.load(file)
    assert np.array_equal(program(tmp_path / "scan.nii.gz"), largest)
    assert mask(postprocess="none", thresholds={"organ": 0.999}).sum() == 0
    with pytest.raises(ConfigError, match="thresholds: orgam is none of organ"):
        mask(thresholds={"orgam": 0.5})
