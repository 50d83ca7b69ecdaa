"""`train.py` and `predict.py` as a user runs them: what they print, write and return."""

import csv
import errno
import json
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support.commands import TINY, command, started
from support.pages import Reader

from segpipe import checkpoint
from segpipe.batch import predict_batch
from segpipe.config.compose import defaults
from segpipe.config.predict import Predict
from segpipe.config.validation import validate
from segpipe.errors import ConfigError, DataError
from segpipe.files import PART
from segpipe.prediction.postprocessing import clean
from segpipe.prediction.predictor import Predictor
from segpipe.prediction.record_store import FOLDER, RecordStore
from segpipe.processes import HOST


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a tiny network was trained on the phantom."""
    folder = tmp_path_factory.mktemp("work")
    done = command("train.py", *TINY, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


def point_back(trained: Path) -> None:
    """Lets `runs/latest` be the run of the fixture again."""
    (trained / "runs/latest").unlink()
    (trained / "runs/latest").symlink_to(
        min((trained / "runs/segpipe").iterdir()).relative_to(trained / "runs")
    )


def test_a_run_leaves_all_that_it_should(trained: Path) -> None:
    run = trained / "runs" / "latest"
    written = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    expected = {
        "config.yaml",
        "plan.yaml",
        "split.json",
        "environment.json",
        "metrics.csv",
        "validation.csv",
    }
    expected |= {
        "network.json",
        "network.png",
        "curves.png",
        "report.html",
        "report.json",
        "train.log",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }
    assert expected <= written
    assert any(name.startswith("overlays/") for name in written)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["channels"] == [4, 8]
    assert json.loads((run / "environment.json").read_text())["overrides"] == TINY
    with (run / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["3", "6"]
    page = Reader(run / "report.html")
    assert page.problems == page.outside == []
    assert {"preparing cases", "training", "validating", "scoring and drawing"} <= {
        row[0] for row in page.cells
    }
    known = json.loads((run / "report.json").read_text())
    assert known["stopped"] is None
    assert len(known["scores"]) == 3 * len(known["split"]["val"])
    said = (run / "train.log").read_text()
    assert "first step after" in said, "details"
    assert "HD95 mm" in said, "tables"


def test_regions_are_learnt_scored_and_shown(trained: Path) -> None:
    """Overlapping regions through training, the checkpoint, and a mask with the dataset's own ids."""
    regions = "data.regions={organs:[1,2],kidneys:[2],vessel:[3]}"
    done = command(
        "train.py", "name=regions", *TINY, regions, "hydra.run.dir=runs/regions/one", folder=trained
    )
    assert done.returncode == 0, done.stderr
    with (trained / "runs/regions/one/validation.csv").open() as file:
        assert {row["label"] for row in csv.DictReader(file)} == {"organs", "kidneys", "vessel"}
    arguments = ["input=data/phantom/imagesTs", "truth=data/phantom/labelsTs", "output=regions"]
    done = command("predict.py", "checkpoint=runs/regions/one", *arguments, folder=trained)
    assert done.returncode == 0, done.stderr
    with (trained / "regions/scores.csv").open() as file:
        assert {row["label"] for row in csv.DictReader(file)} == {"organs", "kidneys", "vessel"}
    assert checkpoint.load(trained / "runs/regions/one").network.heads[0].out_channels == 3
    point_back(trained)


def test_a_network_is_described_without_training(trained: Path) -> None:
    wanted = [
        "mode=describe",
        "model.long_skips=none",
        "model.match=params",
        "plan.patch=[40,40,40]",
        *TINY[1:3],
        "hydra.run.dir=runs/described",
    ]
    done = command("train.py", *wanted, folder=trained)
    assert done.returncode == 0, done.stderr
    facts = json.loads((trained / "runs/described/network.json").read_text())
    assert abs(facts["match"]["reached"] / facts["match"]["reference"] - 1) <= 0.01
    assert (
        facts["match"]["reached"]
        == facts["parameters"]
        == sum(stage["parameters"] for stage in facts["stages"])
    )
    for words in (
        "encoder 3",
        "decoder 0",
        "sees mm",
        "79x79x79",
        "matched params: channels 16, 32, 64, 144",
    ):
        assert words in done.stdout
    assert {path.name for path in (trained / "runs/described").iterdir()} <= {
        "network.json", "network.png", "train.log", "split.json", "doctor.csv",
    }  # fmt: skip
    assert (trained / "runs/latest").resolve().parent.name == "segpipe"


def test_a_network_of_monai_trains_and_predicts(trained: Path) -> None:
    tiny = [option for option in TINY if "channels" not in option]
    done = command(
        "train.py",
        "model=monai",
        "model.arguments={init_filters:8}",
        *tiny,
        "hydra.run.dir=runs/m",
        folder=trained,
    )
    assert done.returncode == 0, done.stderr
    done = command(
        "predict.py", "checkpoint=runs/m", "input=data/phantom/imagesTs", "output=m", folder=trained
    )
    assert done.returncode == 0, done.stderr
    point_back(trained)


def test_a_checkpoint_is_plain_and_enough(trained: Path) -> None:
    stored = torch.load(trained / "runs/latest/checkpoints/best.ckpt", weights_only=True)
    assert stored["segpipe"]["plan"]["labels"] == {
        "background": 0,
        "liver": 1,
        "kidneys": 2,
        "vessel": 3,
    }
    found = checkpoint.load(trained / "runs/latest")
    assert not found.network.training
    assert found.config["seed"] == 0
    assert found.data is not None
    assert (found.data.name, found.data.train, found.data.validate) == ("Phantom", 5, 1)
    assert len(found.seen) == 6, "the images of all of them"
    with (trained / "runs/latest/validation.csv").open() as file:
        scored = {row["label"]: float(row["dice"]) for row in csv.DictReader(file)}
    assert found.dice == pytest.approx(scored, abs=1e-4)


def test_written_masks_score_what_training_logged(trained: Path) -> None:
    """Dice of the masks on disk equals validation's, to 1e-3; the geometry is the scan's."""
    run = trained / "runs" / "latest"
    val = json.loads((run / "split.json").read_text())["val"]
    scans = trained / "val"
    scans.mkdir()
    for name in val:
        (scans / f"{name}.nii.gz").symlink_to(trained / f"data/phantom/imagesTr/{name}.nii.gz")
    done = command(
        "predict.py",
        "checkpoint=runs/latest",
        "input=val",
        "output=masks",
        "truth=data/phantom/labelsTr",
        folder=trained,
    )
    assert done.returncode == 0, done.stderr
    with (run / "validation.csv").open() as file:
        logged = {(row["case"], row["label"]): float(row["dice"]) for row in csv.DictReader(file)}
    for name in val:
        scan, mask = nib.load(scans / f"{name}.nii.gz"), nib.load(trained / f"masks/{name}.nii.gz")
        truth = np.asarray(nib.load(trained / f"data/phantom/labelsTr/{name}.nii.gz").dataobj)
        found = np.asarray(mask.dataobj)
        assert np.array_equal(scan.affine, mask.affine)
        assert found.dtype == np.uint8
        for number, label in enumerate(("liver", "kidneys", "vessel"), 1):
            dice = (
                2
                * ((found == number) & (truth == number)).sum()
                / ((found == number).sum() + (truth == number).sum())
            )
            assert dice == pytest.approx(logged[name, label], abs=1e-3)
    with (trained / "masks/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done"] * len(val)
    assert (trained / "masks/scores.csv").is_file()
    assert len(list((trained / "masks/overlays").glob("*.png"))) == len(val)
    page = (trained / "masks/index.html").read_text(encoding="utf-8")
    assert all(name in page for name in val)
    assert page.count("data:image/webp") == len(val)


@pytest.mark.parametrize(("model", "steps"), [("unet3d", 40), ("unet2d", 200)])
def test_masks_of_real_scans_score_what_training_logged(
    real_data: Path, tmp_path: Path, model: str, steps: int
) -> None:
    root = real_data / "Task04_Hippocampus"
    names = sorted(
        path.name.removesuffix(".nii.gz")
        for path in (root / "imagesTr").glob("hippocampus_*.nii.gz")
    )
    (tmp_path / "split.json").write_text(json.dumps({"train": names[:4], "val": names[4:7]}))
    arguments = [f"model={model}", "model.channels=[8,16]", "data=decathlon", f"data.root={root}",
                 "data.split=split.json", f"trainer.max_steps={steps}", "trainer.validations=1", "augment=none"]  # fmt: skip
    done = command("train.py", *arguments, folder=tmp_path, pictures=False)
    assert done.returncode == 0, done.stderr
    (tmp_path / "scans.txt").write_text(
        "\n".join(str(root / f"imagesTr/{name}.nii.gz") for name in names[4:7])
    )
    call = [
        "checkpoint=runs/latest",
        "input=scans.txt",
        "output=masks",
        f"truth={root / 'labelsTr'}",
        "overlays=false",
        "postprocess=none",  # the run's own scores are those of the network
    ]
    done = command("predict.py", *call, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    dice = []
    for table in ("runs/latest/validation.csv", "masks/scores.csv"):
        with (tmp_path / table).open() as file:
            dice.append(
                {(row["case"], row["label"]): float(row["dice"]) for row in csv.DictReader(file)}
            )
    assert len(dice[0]) == 6
    assert dice[0] == pytest.approx(dice[1], abs=1e-3)
    assert (
        max(dice[0].values()) > 0.3
    )  # so that there is something to compare; with fewer, luck decides


def test_one_bad_scan_is_reported_and_the_rest_are_done(trained: Path) -> None:
    scans = trained / "mixed"
    scans.mkdir()
    good = next((trained / "data/phantom/imagesTs").glob("*.nii.gz"))
    (scans / "b_good.nii.gz").symlink_to(good)
    (scans / "a_truncated.nii.gz").write_bytes(good.read_bytes()[:5000])
    nib.save(
        nib.Nifti1Image(np.full((20, 20, 20), np.nan, np.float32), np.eye(4)),
        scans / "c_nan.nii.gz",
    )
    nib.save(
        nib.Nifti1Image(np.zeros((20, 20, 20, 2), np.float32), np.eye(4)),
        scans / "d_channels.nii.gz",
    )
    (scans / "notes.txt").write_text("not a scan")
    done = command(
        "predict.py", "checkpoint=runs/latest", "input=mixed", "output=mixed_masks", folder=trained
    )
    assert done.returncode == 3
    assert "Traceback" not in done.stdout + done.stderr
    assert sorted(path.name for path in (trained / "mixed_masks").glob("*.nii.gz")) == [
        "b_good.nii.gz"
    ]
    with (trained / "mixed_masks/predictions.csv").open() as file:
        reasons = {row["case"]: row["reason"] for row in csv.DictReader(file)}
    assert "cannot be read as NIfTI" in reasons["a_truncated"]
    assert reasons["b_good"] == ""
    assert "8000 of 8000 voxels are NaN or infinite" in reasons["c_nan"]
    assert "has 2 channels, but the network was planned for 1" in reasons["d_channels"]
    assert "a_truncated.nii.gz" in done.stderr
    page = (trained / "mixed_masks/index.html").read_text(encoding="utf-8")
    assert page.index("8000 of 8000 voxels") < page.index("b_good.nii.gz"), (
        "what failed comes first"
    )
    log = (trained / "mixed_masks/predict.log").read_text()
    assert "8000 of 8000 voxels are NaN or infinite" in log
    assert "1 of 4 masks written" in log


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["checkpoint=nowhere", "input=val", "output=m"], "segpipe-predict: nowhere: no such checkpoint"),
        (["checkpoint=text.ckpt", "input=val", "output=m"], "segpipe-predict: text.ckpt: is not a checkpoint, or is cut short (4 bytes)"),
        (["checkpoint=cut.ckpt", "input=val", "output=m"], "segpipe-predict: cut.ckpt: is not a checkpoint, or is cut short (1000 bytes)"),
        (["checkpoint=other.pt", "input=val", "output=m"], "segpipe-predict: other.pt: is a file of torch"),
        (["checkpoint=runs/latest", "input=data/fantom", "output=m"], "segpipe-predict: input=data/fantom: no file matches; the closest in data are phantom"),
        (["checkpoint=runs/latest", "input=runs/latest/checkpoints", "output=m"], "segpipe-predict: input=runs/latest/checkpoints: none of the 2 files"),
        (["checkpoint=runs/latest", "input=data/phantom/imagesTs", "output=data/phantom/imagesTs"], "segpipe-predict: output=data/phantom/imagesTs: unseen_000.nii.gz would replace the scan itself"),
        (["checkpoint=runs/latest", "input=data/phantom/imagesTs", "output=m", "device=cuda"], "segpipe-predict: device=cuda, but torch finds no CUDA device"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_exit_status_2(
    trained: Path, arguments: list[str], line: str
) -> None:
    if "device=cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    (trained / "text.ckpt").write_text("text")
    (trained / "cut.ckpt").write_bytes(
        (trained / "runs/latest/checkpoints/best.ckpt").read_bytes()[:1000]
    )
    torch.save({"weights": torch.ones(3)}, trained / "other.pt")
    done = command("predict.py", *arguments, folder=trained)
    assert done.returncode == 2
    said = (done.stdout + done.stderr).strip().splitlines()
    assert said[-1].startswith(line), said
    assert "Traceback" not in done.stderr
    assert not (trained / "data/phantom/imagesTs/predict.log").exists()


def test_a_misspelt_key_is_one_line_before_anything_is_imported(tmp_path: Path) -> None:
    start = time.perf_counter()
    done = command("train.py", "model.long_skip=none", folder=tmp_path)
    assert (
        time.perf_counter() - start < 20
    )  # torch, MONAI and Lightning alone take longer to import when it is cold
    assert done.returncode == 2
    assert done.stdout == ""
    assert (
        done.stderr
        == "segpipe-train: model.long_skip is not a key. Did you mean 'model.long_skips'? (--help lists all)\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["data=decathlon", "data.root=nowhere"], "segpipe-train: data.root=nowhere: no such folder"),
        (["data=folder", "data.root=empty"], "segpipe-train: data.root=empty: has no folder images"),
        (["data=folder", "data.root=shapes"], "error: shapes/labels/a.nii: has the shape (8, 8, 9), but a.nii has (8, 8, 8); they must be equal"),
        (["data=folder", "data.root=ids", "data.labels={background:0,organ:1}"], "error: ids/labels/a.nii: holds 7 (512 voxels), but the dataset declares only 0 background, 1 organ"),
    ],
)  # fmt: skip
def test_bad_data_is_a_line_per_file(tmp_path: Path, arguments: list[str], line: str) -> None:
    for name, shape, label in (("shapes", (8, 8, 9), 1), ("ids", (8, 8, 8), 7)):
        for case in "abc":
            image = np.full((8, 8, 8), ord(case), np.uint8)
            image[0] = 0
            for part, array in (("images", image), ("labels", np.full(shape, label, np.uint8))):
                (tmp_path / name / part).mkdir(parents=True, exist_ok=True)
                nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / name / part / f"{case}.nii")
    (tmp_path / "empty").mkdir()
    done = command("train.py", *arguments, folder=tmp_path)
    said = (done.stdout + done.stderr).strip().splitlines()
    assert any(one.startswith(line) for one in said), said
    if line.startswith("error"):
        assert (
            said[-1]
            == "segpipe-train: 3 of 3 cases cannot be used, such as a: repair or leave them out (listed above)"
        )
        assert len(said) == 4  # a line per file and the last
    assert done.returncode == (1 if line.startswith("error") else 2)
    assert "Traceback" not in done.stderr


def test_a_loss_that_is_no_number_stops_the_run_and_names_its_cases(trained: Path) -> None:
    broken = [
        "optim.lr=1e30",
        "optim.clip=null",
        "trainer.precision=float32",
        "hydra.run.dir=runs/diverged/one",
    ]
    done = command("train.py", *TINY, *broken, folder=trained, pictures=False)
    point_back(trained)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (
        "Not done: stopped by DivergedError: step"
        in Reader(trained / "runs/diverged/one/report.html").text
    )
    line = done.stderr.strip().splitlines()[-1]
    assert re.match(
        r"segpipe-train: step \d: the loss is \S+ \(dice \S+, cross_entropy \S+\) on patches of phantom_\d+; lower optim.lr",
        line,
    ), line


def same(one: Any, other: Any) -> bool:
    """Whether two parts of a checkpoint are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


PARTS = (
    "state_dict",
    "current_model_state",
    "averaging_state",
    "optimizer_states",
    "random_states",
)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path, number: int) -> None:
    """Weights, their running mean and the optimiser; with dropout, whose state is stored too."""
    arguments = [*TINY, "trainer.max_steps=60", "trainer.steps_per_epoch=10", "trainer.validations=2", "augment=standard", "model.dropout=0.1",
                 "model.skip_dropout=0.1", "seed=3", "optim.ema=0.9"]  # fmt: skip
    last = tmp_path / "stopped/checkpoints/last.ckpt"
    blank = {"folder": tmp_path, "pictures": False}
    with started("train.py", *arguments, "hydra.run.dir=stopped", **blank) as process:
        process.wait_for(last)
        process.send_signal(number)
        assert process.done().returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert 10 <= torch.load(last, weights_only=True)["global_step"] < 60
    assert command("train.py", "resume=stopped", **blank).returncode == 0
    assert command("train.py", *arguments, "hydra.run.dir=whole", **blank).returncode == 0
    _check_runs_alike(tmp_path / "stopped", tmp_path / "whole", steps=60)
    assert command("train.py", "resume=stopped", "seed=1", folder=tmp_path).stderr.startswith(
        "segpipe-train: seed: a resumed run keeps its config; only trainer.*, page.*, verbose, data.root, data.cache, data.cache_gib, data.workers can be changed with resume="
    )


def _check_runs_alike(one: Path, other: Path, steps: int) -> None:
    """Check that two runs have ended with the same weights, states and tables, bit for bit."""
    ends = [torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (one, other)]
    assert ends[0]["global_step"] == ends[1]["global_step"] == steps
    for part in PARTS:
        assert same(ends[0].get(part), ends[1].get(part)), part
    for table in ("metrics.csv", "validation.csv"):
        assert (one / table).read_text() == (other / table).read_text()


def test_the_same_seed_gives_the_same_weights(trained: Path) -> None:
    where = "hydra.run.dir=runs/again/one"
    done = command("train.py", *TINY, where, folder=trained, pictures=False)
    point_back(trained)
    assert done.returncode == 0, done.stderr
    first = torch.load(trained / "runs/latest/checkpoints/last.ckpt", weights_only=True)
    second = torch.load(trained / "runs/again/one/checkpoints/last.ckpt", weights_only=True)
    assert same(first["state_dict"], second["state_dict"])


def test_a_sweep_is_a_folder_per_run(tmp_path: Path) -> None:
    words = ["-m", *TINY, "model.long_skips=none,add"]
    done = command("train.py", *words, folder=tmp_path, pictures=False)
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "runs/segpipe").iterdir()
    for number, skip in enumerate(["none", "add"]):
        config = yaml.safe_load((sweep / str(number) / "config.yaml").read_text())
        assert config["model"]["long_skips"] == skip
        assert (sweep / str(number) / "validation.csv").is_file()


def test_a_2d_network_on_volumes_writes_volumes(tmp_path: Path) -> None:
    left_out = ("plan.patch", "data.phantom")
    tiny = [argument for argument in TINY if not argument.startswith(left_out)]
    done = command(
        "train.py",
        *tiny,
        "model=unet2d",
        "model.channels=[4,8]",
        "plan.patch=[32,32]",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    done = command(
        "predict.py",
        "checkpoint=runs/latest",
        "input=data/phantom/imagesTs",
        "output=m",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for scan in (tmp_path / "data/phantom/imagesTs").iterdir():
        assert nib.load(tmp_path / "m" / scan.name).shape == nib.load(scan).shape


def test_images_in_masks_out(tmp_path: Path) -> None:
    """2D images whose labels are 0 and 255, as many tools write them."""
    for name in "abcdef":
        for part in ("images", "labels"):
            (tmp_path / "set" / part).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (40, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"set/images/{name}.png")
        Image.fromarray(((pixels[..., 0] > 127) * 255).astype(np.uint8)).save(
            tmp_path / f"set/labels/{name}.png"
        )
    left_out = ("plan.patch", "data.phantom")
    tiny = [argument for argument in TINY if not argument.startswith(left_out)]
    done = command(
        "train.py",
        *tiny,
        "model=unet2d",
        "model.channels=[4,8]",
        "data=folder",
        "data.root=set",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    done = command(
        "predict.py",
        "checkpoint=runs/latest",
        "input=set/images/*.png",
        "output=m",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    mask = np.asarray(Image.open(tmp_path / "m/a.png"))
    assert mask.shape == (40, 56)
    assert set(np.unique(mask)) <= {0, 255}


def test_folds_are_averaged(tmp_path: Path) -> None:
    folds = [*TINY, "data.folds=3", "data.fold=0,1,2", "plan.normalise=ct", "hydra.sweep.dir=cv"]
    done = command("train.py", "-m", *folds, folder=tmp_path, pictures=False)
    assert done.returncode == 0, done.stderr
    plans = [yaml.safe_load((tmp_path / f"cv/{fold}/plan.yaml").read_text()) for fold in range(3)]
    assert plans[0] == plans[1] == plans[2]
    validated = [
        json.loads((tmp_path / f"cv/{fold}/split.json").read_text())["val"] for fold in range(3)
    ]
    assert sorted(name for names in validated for name in names) == sorted(
        path.name[:-7] for path in (tmp_path / "data/phantom/imagesTr").iterdir()
    )
    arguments = ["input=data/phantom/imagesTs", "overlays=false"]
    done = command(
        "predict.py", "checkpoint=[cv/0,cv/1,cv/2]", *arguments, "output=mean", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    scan = next((tmp_path / "data/phantom/imagesTs").iterdir())
    predictor = Predictor.load(*(tmp_path / f"cv/{fold}" for fold in range(3)))
    singles = [Predictor.load(tmp_path / f"cv/{fold}") for fold in range(3)]
    x = torch.randn(1, 1, *predictor.plan.patch)
    with torch.inference_mode():
        mean = torch.softmax(predictor.network(x), 1)
        expected = torch.stack([torch.softmax(single.network(x), 1) for single in singles]).mean(0)
    assert torch.allclose(mean, expected, atol=1e-6)
    mask = np.asarray(nib.load(tmp_path / "mean" / scan.name).dataobj)
    assert np.array_equal(mask, predictor([scan]))


def test_an_ensemble_shares_its_way_of_seeing(tmp_path: Path, trained: Path) -> None:
    spaced = [*TINY, "plan.spacing=[3,3,3]", "trainer.max_steps=3", "hydra.run.dir=runs/coarse"]
    assert command("train.py", *spaced, folder=trained, pictures=False).returncode == 0
    point_back(trained)
    both = "checkpoint=[runs/latest,runs/coarse]"
    done = command(
        "predict.py",
        both,
        "input=data/phantom/imagesTs",
        f"output={tmp_path / 'm'}",
        folder=trained,
    )
    assert done.returncode == 2
    assert (
        "runs/coarse/checkpoints/best.ckpt was trained with spacing_mm [3.0, 3.0, 3.0], but"
        in done.stderr
    )
    assert not (tmp_path / "m").exists()


def test_a_batch_does_only_what_is_missing_or_changed(trained: Path) -> None:
    scans = trained / "again"
    scans.mkdir()
    for number, path in enumerate(sorted((trained / "data/phantom/imagesTs").iterdir())):
        (scans / f"scan{number}.nii.gz").write_bytes(path.read_bytes())
    (scans / "broken.nii.gz").write_bytes(b"not a scan")
    call = ["checkpoint=runs/latest", "input=again", "output=again_masks", "overlays=false"]
    masks = trained / "again_masks"

    def run(*more: str) -> tuple[int, set[str]]:
        before = (
            {path.name: path.stat().st_mtime_ns for path in masks.glob("*.nii.gz")}
            if masks.is_dir()
            else {}
        )
        done = command("predict.py", *call, *more, folder=trained)
        assert "Traceback" not in done.stderr
        after = {path.name: path.stat().st_mtime_ns for path in masks.glob("*.nii.gz")}
        return done.returncode, {name for name in after if before.get(name) != after[name]}

    assert run() == (3, {"scan0.nii.gz", "scan1.nii.gz"})
    first = {path.name: path.read_bytes() for path in masks.glob("*.nii.gz")}
    gone = 2**22 + 1  # a number that no process has
    (masks / f"{PART}{HOST}-{gone}-0-scan0.nii.gz").write_bytes(b"half")
    others = [".part-notes.txt", f"{PART}elsewhere-{gone}-0-scan0.nii.gz"]
    for name in others:
        (masks / name).write_bytes(b"of the user, or of another machine")
    assert run() == (0, set())
    assert sorted(path.name for path in masks.glob(".*part-*")) == sorted(others)
    for name in others:
        (masks / name).unlink()
    with (masks / "predictions.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["failed", "done", "done"]
    (masks / "scan1.nii.gz").write_bytes(
        first["scan1.nii.gz"][:100]
    )  # half-written by somebody else
    assert run() == (0, {"scan1.nii.gz"})
    assert {path.name: path.read_bytes() for path in masks.glob("*.nii.gz")} == first
    assert run("overlap=0.25") == (3, {"scan0.nii.gz", "scan1.nii.gz"})
    (scans / "broken.nii.gz").write_bytes((scans / "scan0.nii.gz").read_bytes())
    assert run("overlap=0.25") == (0, {"broken.nii.gz"})
    (masks / "manifest.json").write_text("{}")
    assert run("overlap=0.25") == (0, set()), "the manifest is made from the records"
    shutil.rmtree(masks / FOLDER)
    (masks / "manifest.json").write_text("{}")
    done = command("predict.py", *call, folder=trained)
    assert done.returncode == 2
    assert "manifest.json: is not what segpipe writes" in done.stderr


def predicting(trained: Path, output: Path, **changed: Any) -> Predict:
    values = defaults("predict") | {
        "checkpoint": str(trained / "runs/latest"),
        "device": "cpu",
        "overlays": False,
    }
    return validate(
        Predict,
        values | {"input": str(trained / "data/phantom/imagesTs"), "output": str(output)} | changed,
    )


def test_what_failed_is_tried_again_only_when_asked(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "segment", lambda *_: 1 / 0)
    assert predict_batch(predicting(trained, tmp_path)) == 3
    monkeypatch.undo()
    assert predict_batch(predicting(trained, tmp_path)) == 0
    assert predict_batch(predicting(trained, tmp_path, strict=True)) == 3
    assert predict_batch(predicting(trained, tmp_path, retry_failed=True)) == 0


def test_a_full_disk_is_one_line_and_nothing_is_lost(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for place, save in (("outputs.write_mask", ["mask"]), ("maps._mapped_zeros", ["entropy"])):
        monkeypatch.setattr(f"segpipe.prediction.{place}", full)
        with pytest.raises(DataError, match="the disk is full; make room and run again to go on"):
            predict_batch(predicting(trained, tmp_path, save=save))
        monkeypatch.undo()
    assert predict_batch(predicting(trained, tmp_path)) == 0


def test_an_interrupted_batch_finishes_the_scan_in_hand_and_goes_on_later(trained: Path) -> None:
    scans = trained / "many"
    scans.mkdir()
    for number in range(16):
        path = sorted((trained / "data/phantom/imagesTs").iterdir())[number % 2]
        (scans / f"scan{number:02d}.nii.gz").write_bytes(path.read_bytes())
    call = ["checkpoint=runs/latest", "input=many", "output=many_masks", "overlays=false"]
    masks = trained / "many_masks"
    for stop in (signal.SIGINT, signal.SIGKILL):
        there = len(list(masks.glob("scan*")))
        with started("predict.py", *call, folder=trained) as process:
            while len(list(masks.glob("scan*"))) < there + 3:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(stop)
            done = process.done()
        if stop == signal.SIGINT:
            assert done.returncode == 130
            assert re.search(
                r"segpipe-predict: interrupted: \d+ of 16 scans are settled; run again to go on",
                done.stderr,
            )
        for path in masks.glob("scan*"):
            assert np.asarray(nib.load(path).dataobj).shape == nib.load(scans / path.name).shape
        assert len(RecordStore(masks).records) < 16
    assert command("predict.py", *call, folder=trained).returncode == 0
    assert len(list(masks.glob("scan*"))) == 16
    assert len({path.read_bytes() for path in masks.glob("scan*")}) == 2


def test_masks_are_cleaned_as_asked(tmp_path: Path, trained: Path) -> None:
    asked = {
        "keep_largest": ["liver"],
        "min_volume_ml": {"kidneys": 0.5},
        "labels": ["liver", "kidneys"],
    }
    assert predict_batch(predicting(trained, tmp_path / "whole")) == 0
    assert predict_batch(predicting(trained, tmp_path / "clean", **asked)) == 0
    for path in (tmp_path / "whole").glob("*.nii.gz"):
        whole, mask = (nib.load(tmp_path / name / path.name) for name in ("whole", "clean"))
        expected = clean(
            np.asarray(whole.dataobj),
            abs(np.linalg.det(whole.affine[:3, :3])) / 1000,
            [1],
            {2: 0.5},
            [1, 2],
        )
        assert np.array_equal(np.asarray(mask.dataobj), expected)
    with (tmp_path / "clean/predictions.csv").open() as file:
        assert {row["vessel voxels"] for row in csv.DictReader(file)} == {"0"}
    with pytest.raises(ConfigError, match="keep_largest: liber is no label"):
        predict_batch(predicting(trained, tmp_path / "none", keep_largest=["liber"]))


def test_probabilities_and_entropy_are_written_beside_the_masks(
    tmp_path: Path, trained: Path
) -> None:
    asked = {"save": ["mask", "probabilities", "entropy"]}
    assert predict_batch(predicting(trained, tmp_path, **asked)) == 0
    masks = sorted(tmp_path.glob("*.nii.gz"))
    assert len(masks) == 2
    files = [
        tmp_path / folder / path.name
        for path in masks
        for folder in ("", "probabilities", "entropy")
    ]
    for path in masks:
        mask, chances, entropy = (
            nib.load(tmp_path / folder / path.name) for folder in ("", "probabilities", "entropy")
        )
        assert chances.shape == (*mask.shape, 4)
        assert entropy.shape == mask.shape
        assert np.array_equal(chances.affine, mask.affine)
        found, labels = chances.get_fdata(), np.asarray(mask.dataobj)
        assert np.abs(found.sum(3) - 1).max() < 4 / 255
        chosen = np.take_along_axis(found, labels[..., None].astype(int), 3)[..., 0]
        assert (
            chosen >= found.max(3) - 1.01 / 255
        ).all()  # the mask's ids are their own places in the phantom
        shares = entropy.get_fdata()
        assert 0 <= shares.min() < shares.max() < 1 + 1e-6, "NIfTI keeps 1/255 as float32"
    before = [file.stat().st_mtime_ns for file in files]
    assert predict_batch(predicting(trained, tmp_path, **asked)) == 0
    assert [file.stat().st_mtime_ns for file in files] == before
    files[2].unlink()
    assert predict_batch(predicting(trained, tmp_path, **asked)) == 0
    changed = [file.stat().st_mtime_ns != stamp for file, stamp in zip(files, before, strict=True)]
    assert changed == [True] * 3 + [False] * 3
    assert not list(tmp_path.rglob(f"{PART}*"))
    assert predict_batch(predicting(trained, tmp_path / "alone", save=["entropy"])) == 0
    assert {path.name for path in (tmp_path / "alone").rglob("*.nii.gz")} == {
        path.name for path in masks
    }
    assert not list((tmp_path / "alone").glob("*.nii.gz"))


def test_no_file_is_written_over_another(tmp_path: Path, trained: Path) -> None:
    (tmp_path / "scans/entropy").mkdir(parents=True)
    scan = next((trained / "data/phantom/imagesTs").iterdir())
    for path in ("scans/x.nii.gz", "scans/entropy/x.nii.gz"):
        (tmp_path / path).write_bytes(scan.read_bytes())
    twice = {"input": str(tmp_path / "scans"), "recursive": True, "save": ["mask", "entropy"]}
    with pytest.raises(ConfigError, match="save: two files would be written as entropy/x.nii.gz"):
        predict_batch(predicting(trained, tmp_path / "m", **twice))


def test_what_the_memory_cannot_hold_fails_alone(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scans").mkdir()
    scan = next((trained / "data/phantom/imagesTs").iterdir())
    (tmp_path / "scans/small.nii.gz").write_bytes(scan.read_bytes())
    nib.save(
        nib.Nifti1Image(np.zeros((900, 900, 900), np.uint8), np.eye(4)),
        tmp_path / "scans/large.nii.gz",
    )
    monkeypatch.setattr("segpipe.prediction.inference_plan.usable_mib", lambda _: 2000.0)
    assert predict_batch(predicting(trained, tmp_path / "m", input=str(tmp_path / "scans"))) == 3
    with (tmp_path / "m/predictions.csv").open() as file:
        large, small = csv.DictReader(file)
    assert (small["status"], small["note"]) == ("done", "")
    assert large["read_seconds"] == ""
    assert re.search(
        r"large.nii.gz: needs about \d+ MiB of memory where 2000 MiB may be used", large["reason"]
    )
