"""The predicted quality of masks: what is measured, learnt, stored, and shown worst first."""

import csv
import threading
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from support.checkpoints import write_checkpoint
from support.pages import Reader
from support.plans import plan
from support.predictions import done, options
from torch import Tensor, nn

from segpipe import checkpoint
from segpipe.batch import predict_batch
from segpipe.config.compose import defaults
from segpipe.config.predict import Predict
from segpipe.config.validation import validate
from segpipe.data.cases import Case
from segpipe.data.degradation import FAULTS, degrade
from segpipe.data.prepare import PreparedScan
from segpipe.ensembles import load_ensemble
from segpipe.errors import ConfigError
from segpipe.geometry import Grid, Volume
from segpipe.metrics import dice_per_target
from segpipe.nets.ensemble import Ensemble, measuring
from segpipe.prediction.confidence import Confidence
from segpipe.prediction.maps import Maps
from segpipe.prediction.prediction import Prediction
from segpipe.prediction.predictor import Predictor
from segpipe.prediction.quality_measures import measure_quality
from segpipe.prediction.record_store import RecordStore
from segpipe.quality import FEATURES, OTHERWISE, QualityModel, Usual, predict_quality
from segpipe.reporting.prediction_page import write_index
from segpipe.training.quality_learning import (
    Change,
    JudgedScan,
    judge_scan,
    learn_quality,
    store_quality,
)
from segpipe.units import UNITS

OLD = Path(__file__).parent / "stored/0.1.0/run"
ORGAN = {"background": 0, "organ": 1}


def made(**changed: Any) -> QualityModel:
    """Return a model for which a mask's volume alone counts, usually 2 mL."""
    values: dict[str, Any] = {
        "usual": {"volume/organ": Usual(median=np.log(2.0), deviation=0.1)},
        "weights": {"volume": 1.0},
        "typical": dict.fromkeys(FEATURES, 0.0),
        "knots": [(0.0, 0.95), (3.0, 0.05)],
        "error": 0.02,
        "rank": 0.9,
        "cases": 10,
        "scans": 40,
    }
    return QualityModel.model_validate(values | changed)


def measured(labels: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> dict[str, float]:
    grid = Grid(labels.shape, np.diag([*spacing, 1.0]))
    image = torch.zeros(1, *labels.shape)
    found = Prediction(labels, PreparedScan(image, Volume(image, grid.affine)), Maps(grid, 0, 2, True, []))  # fmt: skip
    return measure_quality(found, plan(labels=ORGAN))


def test_a_mask_is_measured_as_by_hand() -> None:
    """A box of 2x3x4 at the border, and a voxel of its own."""
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[:2, 2:5, 2:6] = 1
    labels[6, 6, 6] = 1
    found = measured(labels, (1.0, 2.0, 2.5))
    faces = 2 * (2 * 3 + 3 * 4 + 2 * 4) + 6
    assert found["volume/organ"] == pytest.approx(np.log(25 * 0.005))
    assert found["shape/organ"] == pytest.approx(np.log(faces / 25 ** (2 / 3)))
    assert found["parts/organ"] == pytest.approx(np.log(2))
    assert found["edge/organ"] == pytest.approx(12 / faces)
    assert not any("/organ" in name for name in measured(np.zeros((4, 4, 4), np.uint8)))


def test_an_image_is_measured_in_its_plane() -> None:
    labels = np.zeros((9, 9, 1), np.uint8)
    labels[2:4, 2:6] = 1
    found = measured(labels)
    assert found["shape/organ"] == pytest.approx(np.log(12 / np.sqrt(8)))
    assert found["edge/organ"] == 0


@pytest.mark.parametrize("exclusive", [True, False])
def test_confidence_does_not_depend_on_the_slabs(exclusive: bool) -> None:
    """It is what the whole probabilities give, which are never in memory at once."""
    rng = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 7, 6, 5, generator=rng)
    probabilities = torch.softmax(logits, 0) if exclusive else torch.sigmoid(logits)
    image = torch.randn(2, 7, 6, 5, generator=rng)
    watched = Confidence(image, 1, exclusive)
    slabs = list(watched.watch(probabilities.split([1, 3, 2], dim=2)))
    assert torch.equal(torch.cat(slabs, 2), probabilities)
    first = 1 if exclusive else 0
    for number, unsure in enumerate(watched.unsureness):
        channel = probabilities[first + number]
        inside = probabilities.argmax(0) == 1 + number if exclusive else channel > 0.5
        expected = 2 * channel[inside].sum() / (channel.sum() + inside.sum())
        assert unsure == pytest.approx(1 - float(expected), abs=1e-5)
        means = image[:, inside].mean(1).tolist()
        assert watched.intensities[number] == pytest.approx(means, abs=1e-5)


def test_the_reason_names_what_costs_most() -> None:
    model = made()
    usual = model.predict({"volume/organ": np.log(2.0)})
    assert (usual.dice, usual.reason) == (0.95, OTHERWISE)
    small = model.predict({"volume/organ": np.log(0.5)})
    assert small.dice < 0.2
    assert small.reason == "organ has 0.5 mL, usually 1.64 to 2.44"
    assert model.predict({"volume/organ": np.log(0.5)}, UNITS["px2"]).reason == (
        "organ has 500 px², usually 1,640 to 2,440"
    )
    missing = model.predict({})
    assert missing.dice < 0.25
    assert missing.reason == "finds no organ"


def test_several_networks_have_the_mean_and_the_reason_of_the_lowest() -> None:
    found = predict_quality([made(), made(knots=[(0.0, 0.55)])], {"volume/organ": np.log(2.0)})
    assert found is not None
    assert found.dice == pytest.approx(0.75)
    assert predict_quality([], {}) is None


def pretended(cases: int, seed: int) -> list[JudgedScan]:
    """Return scans whose Dice falls with the distance of their volume, and noise beside it."""
    rng = np.random.default_rng(seed)
    scans: list[JudgedScan] = []
    for number in range(3 * cases):
        strength = 0.0 if number < cases else 1.0
        away = abs(rng.normal(0, 0.1)) if not strength else rng.uniform(0, 2)
        values = {
            "volume/organ": float(np.log(2.0) + away * rng.choice([-1, 1])),
            "unsure/organ": float(rng.uniform(0, 0.3)),
            "intensity/0/0.5": float(rng.normal()),
        }
        dice = float(np.clip(0.95 - 0.4 * away, 0, 1))
        change = Change("noise", strength, number)
        scans.append(JudgedScan(f"case {number % cases}", change, values, dice))
    return scans


def test_what_is_learnt_holds_for_other_scans() -> None:
    model = learn_quality(pretended(15, 0))
    assert model is not None
    others = pretended(40, 1)
    predicted = [model.predict(scan.measured).dice for scan in others]
    true = [scan.dice for scan in others]
    assert spearmanr(predicted, true).statistic > 0.85  # type: ignore[union-attr]
    assert np.abs(np.array(predicted) - true).mean() < 0.12
    assert model.weights["volume"] == max(model.weights.values())
    assert model.rank > 0.8
    assert (model.cases, model.scans) == (15, 45)


def test_of_few_cases_nothing_is_learnt() -> None:
    assert learn_quality(pretended(4, 0)) is None


class Bright(nn.Module):
    """Labels what is brighter than 1.5 deviations."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([1.5 - x, x - 1.5], 1) * 4


def labelled(folder: Path, number: int) -> Case:
    """Return a scan with a bright box, of another size and place in each."""
    rng = np.random.default_rng(number)
    truth = np.zeros((20, 16, 12), np.uint8)
    low = rng.integers(2, 6, 3)
    truth[low[0] : low[0] + 7, low[1] : low[1] + 6, low[2] : low[2] + 5] = 1
    scan = (truth * 4 + rng.normal(0, 0.5, truth.shape)).astype(np.float32)
    case = Case(f"c{number}", (folder / f"i{number}.nii",), folder / f"l{number}.nii")
    assert case.label is not None
    nib.save(nib.Nifti1Image(scan, np.eye(4)), case.images[0])
    nib.save(nib.Nifti1Image(truth, np.eye(4)), case.label)
    return case


def test_a_run_learns_from_its_cases_and_stores_it_in_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    file = write_checkpoint(tmp_path / "checkpoints/best.ckpt")
    cases = [labelled(tmp_path, number) for number in range(8)]
    threshold = Predictor(
        Bright(), plan(labels=ORGAN), torch.device("cpu"), overlap=0.25, skip_air=False
    )
    store_quality(tmp_path, threshold, cases, seed=0)
    (model,) = checkpoint.load(file).quality
    assert model.cases == 8
    assert model.scans > 17
    assert model.rank > 0.6
    new = labelled(tmp_path, 20)
    clean = judge_scan(threshold, new, Change())
    worse = judge_scan(threshold, new, Change("noise", 2.0, 1))
    assert clean.dice > worse.dice + 0.1
    assert model.predict(clean.measured).dice > model.predict(worse.measured).dice + 0.1


def test_after_a_short_training_few_copies_are_judged(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    file = write_checkpoint(tmp_path / "checkpoints/best.ckpt")
    cases = [labelled(tmp_path, number) for number in range(6)]
    threshold = Predictor(
        Bright(), plan(labels=ORGAN), torch.device("cpu"), overlap=0.25, skip_air=False
    )
    store_quality(tmp_path, threshold, cases, seed=0, trained=0.001)
    (model,) = checkpoint.load(file).quality
    assert model.scans == 6 + 10


def test_files_of_before_have_none_and_a_hostile_model_is_one_line(tmp_path: Path) -> None:
    assert checkpoint.load(OLD).quality == ()
    file = write_checkpoint(tmp_path / "best.ckpt")
    for wrong in ({"knots": []}, {"error": float("nan")}, {"usual": {"volume/organ": 1}}):
        checkpoint.amend(file, quality=made().model_dump(mode="json") | wrong)
        with pytest.raises(ConfigError, match="is not what segpipe writes"):
            checkpoint.load(file)


def test_predictions_begin_with_the_lowest_quality_unless_it_is_switched_off(
    tmp_path: Path,
) -> None:
    file = write_checkpoint(tmp_path / "best.ckpt")
    (tmp_path / "scans").mkdir()
    for number, size in enumerate((20, 6, 13)):
        voxels = np.random.default_rng(number).normal(size=(size, 16, 8)).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"scans/{number}.nii.gz")

    def rows(output: str, **changed: Any) -> list[dict[str, str]]:
        values = defaults("predict") | {"checkpoint": str(file), "device": "cpu"}
        values |= {"input": str(tmp_path / "scans"), "output": str(tmp_path / output)}
        given = validate(Predict, values | {"overlays": False} | changed)
        assert predict_batch(given) == 0
        with (tmp_path / output / "predictions.csv").open(newline="") as opened:
            return list(csv.DictReader(opened))

    without = rows("before")
    assert [row["quality"] for row in without] == ["", "", ""]
    largest = float(without[0]["organ mL"])
    usual = {"volume/organ": {"median": float(np.log(largest)), "deviation": 0.1}}
    checkpoint.amend(file, quality=made(usual=usual).model_dump(mode="json"))
    found = rows("with")
    assert [row["case"] for row in found] == ["1", "2", "0"], "the smallest mask is the worst"
    qualities = [float(row["quality"]) for row in found]
    assert qualities == sorted(qualities)
    assert "organ has" in found[0]["quality_reason"]
    assert found[-1]["quality_reason"] == OTHERWISE
    stored = RecordStore(tmp_path / "with").records
    assert stored["1"].quality == pytest.approx(qualities[0], abs=1e-4)
    off = rows("off", quality=False)
    assert [row["case"] for row in off] == ["0", "1", "2"]
    assert [row["quality"] for row in off] == ["", "", ""]


def test_the_page_begins_with_the_lowest_quality_and_says_why(tmp_path: Path) -> None:
    good, bad, unknown = done("a"), done("b"), done("c")
    good.quality, good.quality_reason = 0.91, OTHERWISE
    bad.quality, bad.quality_reason = 0.42, "finds no liver"
    write_index(tmp_path, [good, unknown, bad], 3, options(tmp_path))
    page = Reader(tmp_path / "index.html")
    assert page.cells[0][2:4] == ["Dice, predicted", "why"]
    assert [row[0] for row in page.cells[1:]] == ["b", "a", "c"]
    assert page.cells[1][2:4] == ["0.42", "finds no liver"]
    assert page.cells[3][2] == "—"


@pytest.mark.parametrize("change", FAULTS)
def test_a_fault_of_a_scan_grows_with_its_strength(change: str) -> None:
    scan = Volume(
        torch.rand(2, 12, 10, 8, generator=torch.Generator().manual_seed(0)) ** 2, np.eye(4)
    )
    weak = degrade(scan, change, 0.2, seed=0).as_tensor()
    strong = degrade(scan, change, 0.6, seed=0).as_tensor()
    original = scan.as_tensor()
    assert 0 < float((weak - original).abs().mean()) < float((strong - original).abs().mean())
    assert torch.equal(degrade(scan, change, 0.0, seed=0).as_tensor(), original)


def test_a_scan_is_cut_off_at_either_end() -> None:
    scan = Volume(torch.rand(1, 12, 10, 1) + 1, np.eye(4))
    for seed, kept in ((0, slice(0, 6)), (1, slice(6, 12))):
        voxels = degrade(scan, "cut_off", 0.5, seed).as_tensor()
        assert torch.equal(voxels[:, kept], scan.as_tensor()[:, kept])
        gone = voxels[:, 6:] if seed == 0 else voxels[:, :6]
        assert torch.all(gone == scan.as_tensor().min())


def test_dice_of_a_judged_scan_is_that_of_its_mask(tmp_path: Path) -> None:
    case = labelled(tmp_path, 0)
    threshold = Predictor(Bright(), plan(labels=ORGAN), torch.device("cpu"), skip_air=False)
    judged = judge_scan(threshold, case, Change())
    labels = threshold.predict(case.images[0]).labels
    assert case.label is not None
    truth = np.asarray(nib.Nifti1Image.from_filename(case.label).dataobj)
    assert judged.dice == pytest.approx(float(dice_per_target(labels, truth, {"organ": [1]})[0]))


class Above(nn.Module):
    """Gives the class 1 to what is brighter than a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.threshold - x, x - self.threshold], 1)


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_agreement_of_an_ensemble_is_that_of_its_masks(exclusive: bool) -> None:
    """Over two batches; the mean of both thresholds lies between them."""
    networks = [Above(-0.5), Above(0.7)]
    ensemble = Ensemble(networks, exclusive)
    x = torch.randn(4, 1, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    with measuring(ensemble) as agreement:
        logits = torch.cat([ensemble(x[:1]), ensemble(x[1:])])
    ensemble(-x)  # no longer measured
    assert agreement is not None
    mean = logits[:, 1] > (logits[:, 0] if exclusive else 0)
    common = 0
    either = 0
    for network in networks:
        own = network(x)[:, 1] > 0
        common += int((own & mean).sum())
        either += int(own.sum() + mean.sum())
    assert agreement.dice[-1] == pytest.approx(2 * common / either)
    assert 0.5 < agreement.dice[-1] < 0.95


def test_the_agreement_is_that_of_one_thread() -> None:
    ensemble = Ensemble([Above(-0.5), Above(0.7)], exclusive=True)
    x = torch.randn(1, 1, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    with measuring(ensemble) as agreement:
        ensemble(x)
        beside = threading.Thread(target=ensemble, args=(x.abs(),))
        beside.start()
        beside.join()
    with measuring(ensemble) as alone:
        ensemble(x)
    assert agreement is not None
    assert alone is not None
    assert agreement.dice == alone.dice


def test_quality_is_no_higher_than_the_agreement() -> None:
    measured = {"volume/organ": np.log(2.0), "disagree/organ": 0.4}
    found = made().predict(measured)
    assert found.dice == pytest.approx(0.6)
    assert found.reason == f"averaged predictions disagree on organ; {OTHERWISE}"
    assert made().predict(measured | {"disagree/organ": 0.01}).dice == 0.95


def test_mirrored_windows_are_measured(tmp_path: Path) -> None:
    """A network that looks at no neighbour sees the same in a mirror."""
    file = write_checkpoint(tmp_path / "best.ckpt")
    checkpoint.amend(file, quality=made().model_dump(mode="json"))
    trained = load_ensemble([file], mirror_axes=[0])
    predictor = Predictor(
        trained.network, trained.plan, torch.device("cpu"), quality=trained.quality
    )
    scan = np.random.default_rng(0).normal(size=(20, 16, 8)).astype(np.float32)
    found = predictor.predict(nib.Nifti1Image(scan, np.diag([1, 1, 2, 1])))
    assert found.confidence is not None
    (apart,) = found.confidence.disagreement
    assert 0 < apart < 1
    assert measure_quality(found, trained.plan)["disagree/organ"] == apart
