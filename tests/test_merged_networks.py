"""Networks with labels of their own, as TotalSegmentator's, paint one mask."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from support.commands import command
from support.nnunet import write_results

from segpipe.checkpoint import load
from segpipe.config.compose import defaults
from segpipe.config.predict import Predict
from segpipe.config.quoting import quoted
from segpipe.config.validation import validate
from segpipe.errors import ConfigError
from segpipe.import_nnunet.convert import import_nnunet
from segpipe.prediction.inference_plan import format_for
from segpipe.prediction.merged import MergedPredictor
from segpipe.prediction.opening import open_predictor
from segpipe.prediction.predictor import Predictor

ORGANS = {"background": 0, "liver": 1, "spleen": 2}
BONES = {"background": 0, "rib": 1, "spine": 2, "skull": 3}


@pytest.fixture
def networks(tmp_path: Path) -> dict[str, Path]:
    """Imported networks of other labels and voxel sizes, one of them with a name that Hydra reads."""
    files = {}
    folder = tmp_path / "two parts, a=b"
    folder.mkdir()
    for name, labels, spacing in (
        ("bones", BONES, [3.0, 2.0, 2.0]),
        ("organs", ORGANS, [2.0, 1.0, 1.5]),
    ):
        results = tmp_path / f"results_{name}"
        write_results(results, dataset={"labels": labels}, spacing=spacing)
        files[name] = folder / f"{name}.ckpt"
        import_nnunet(results, files[name])
    return files


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    voxels = np.random.default_rng(3).gamma(3, 30, (14, 19, 12)).astype(np.float32)
    (tmp_path / "scans").mkdir()
    nib.save(nib.Nifti1Image(voxels, np.diag([1.4, 1.1, 2.3, 1])), tmp_path / "scans/a.nii.gz")
    return tmp_path / "scans/a.nii.gz"


def alone(file: Path, scan: Path) -> np.ndarray:
    return Predictor.of(load(file), torch.device("cpu"), "float32")(scan)


def options(networks: dict[str, Path], **changes: Any) -> Predict:
    given = {name: str(file) for name, file in networks.items()}
    needed = {"checkpoint": given, "input": "scans", "output": "masks", "device": "cpu"}
    return validate(Predict, defaults("predict") | needed | changes)


def test_the_later_network_paints_over_the_earlier(
    networks: dict[str, Path], scan: Path, tmp_path: Path
) -> None:
    bones = alone(networks["bones"], scan)
    organs = alone(networks["organs"], scan)
    expected = np.where(organs > 0, organs + 3, bones)
    assert set(np.unique(expected)) >= {1, 3, 4, 5}
    word = ",".join(f"{name}:{file}" for name, file in networks.items())
    given = [f"checkpoint={{{word}}}", f"input={scan.parent}", f"output={tmp_path / 'masks'}"]
    done = command("predict.py", *given, folder=tmp_path, pictures=False)
    assert done.returncode == 0, done.stderr
    mask = np.asarray(nib.load(tmp_path / "masks/a.nii.gz").dataobj)
    assert np.array_equal(mask, expected)
    table = (tmp_path / "masks/predictions.csv").read_text()
    assert all(f"{name} mL" in table for name in ("liver", "spleen", "rib", "spine", "skull"))
    again = command("predict.py", *given, folder=tmp_path, pictures=False)
    assert "1 unchanged" in again.stdout
    ids = command(
        "predict.py", *given, "label_ids={skull:40,liver:7}", folder=tmp_path, pictures=False
    )
    assert ids.returncode == 0, ids.stderr
    mask = np.asarray(nib.load(tmp_path / "masks/a.nii.gz").dataobj)
    assert np.array_equal(mask, np.array([0, 1, 2, 40, 7, 5])[expected])


def test_ids_of_one_network_change_too(networks: dict[str, Path]) -> None:
    one = options({"organs": networks["organs"]}, label_ids={"liver": 5, "spleen": 1})
    predictor, _ = open_predictor(one)
    assert predictor.plan.labels == {"background": 0, "liver": 5, "spleen": 1}


def test_post_processing_is_of_each_networks_labels(networks: dict[str, Path]) -> None:
    asked = options(networks, thresholds={"rib": 0.3, "liver": 0.4}, keep_largest=["spine"])
    predictor, _ = open_predictor(asked)
    assert predictor.postprocess.keep_largest == ["spine"]
    assert isinstance(predictor, MergedPredictor)
    parts = predictor.parts
    assert parts["organs"].postprocess.thresholds == {"liver": 0.4}
    assert parts["bones"].postprocess.thresholds == {"rib": 0.3}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"label_ids": {"lever": 3}}, "label_ids: lever is no label"),
        ({"label_ids": {"liver": 2}}, "liver and spine would both be 2"),
        ({"thresholds": {"ribs": 0.4}}, "thresholds: ribs is none of rib, "),
        ({"keep_largest": ["ribs"]}, "keep_largest: ribs is no label"),
        ({"save": ["mask", "entropy"]}, "save=entropy: of several networks"),
    ],
)
def test_what_does_not_go_is_one_line(
    networks: dict[str, Path], changes: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError, match=line):
        open_predictor(options(networks, **changes))


def test_networks_of_other_channels_are_refused(networks: dict[str, Path], tmp_path: Path) -> None:
    write_results(tmp_path / "other", channels=2)
    import_nnunet(tmp_path / "other", tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match="other sees 2 channels, but bones 1"):
        open_predictor(options(networks | {"other": tmp_path / "other.ckpt"}))


def test_imported_networks_compute_as_nnunet_does(networks: dict[str, Path]) -> None:
    plan = load(networks["organs"]).plan
    assert format_for(plan, "auto", torch.device("cpu")) == "float32"
    assert format_for(plan, "bf16", torch.device("cpu")) == "bf16"
    assert format_for(plan, "auto", torch.device("cuda")) == "fp16"


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("{a:x.ckpt,b:[y.ckpt,z.ckpt]}", "{a:x.ckpt,b:[y.ckpt,z.ckpt]}"),
        ("{a:my run/x=1.ckpt, b:[y (1),z]}", "{a:'my run/x=1.ckpt',b:['y (1)','z']}"),
    ],
)
def test_names_of_files_need_no_quotes(word: str, read: str) -> None:
    assert quoted([f"checkpoint={word}"], Predict) == [f"checkpoint={read}"]
