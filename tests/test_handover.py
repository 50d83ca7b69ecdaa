"""What others get of a run: the checkpoint's card, the network as ONNX, and MLflow or Weights & Biases told of it."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from support.checkpoints import network_file
from support.config import composed

from segpipe.card import card
from segpipe.checkpoint import KEY, load
from segpipe.config.checkpoint_tools import Card, Export, ExportFormat
from segpipe.config.compose import check, defaults
from segpipe.config.train import Train
from segpipe.config.validation import validate
from segpipe.data.cases import Case
from segpipe.data.inspection import InspectedCase
from segpipe.data.phantom import write_phantom
from segpipe.ensembles import load_ensemble
from segpipe.errors import ConfigError, SegpipeError
from segpipe.export import export
from segpipe.exporting.formats import agreement, noise
from segpipe.exporting.onnx import ONNX
from segpipe.geometry import Grid
from segpipe.planning.fingerprint import content_of
from segpipe.prediction.predictor import Predictor
from segpipe.resume import resumed
from segpipe.training.loggers import check as check_logger
from segpipe.training.loggers import open_logger

needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="needs ONNX: pip install 'segpipe[onnx]'",
)
CPU = torch.device("cpu")


def test_the_card_is_one_screen(tmp_path: Path) -> None:
    lines = card(network_file(tmp_path / "net.ckpt")).splitlines()
    text = "\n".join(lines)
    for words in ("step 1,237", "unet, 3D", "4 vessel", "Phantom: 8 training cases, 2 validation cases", "c0ffee", "0.9000 liver",
                  "0.8500 over whole validation scans", "spacing 2x2x2 mm"):  # fmt: skip
        assert words in text, words
    assert lines[-1].endswith(
        f"segpipe-predict checkpoint={tmp_path}/net.ckpt input=SCANS output=MASKS"
    )
    assert len(lines) < 40


def test_the_card_of_an_older_checkpoint_says_what_it_lacks(tmp_path: Path) -> None:
    file = network_file(tmp_path / "net.ckpt")
    stored = torch.load(file, weights_only=True)
    del stored[KEY]["data"], stored[KEY]["dice"]
    torch.save(stored, file)
    assert card(file).count("not noted") == 3


@pytest.mark.parametrize(
    ("schema", "line"), [(Card, "checkpoint is missing"), (Export, "checkpoint is missing")]
)
def test_what_is_missing_is_one_line(schema: type[Card] | type[Export], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        check(schema.__name__.lower(), schema, [])


def test_data_are_known_by_their_voxels_labels_and_places(tmp_path: Path) -> None:
    grid = Grid((2, 2, 2), torch.eye(4).double().numpy())
    cases = [
        InspectedCase(
            Case(name, (tmp_path / name,), None), grid=grid, content=name, label_content="l"
        )
        for name in "ab"
    ]
    same = [
        InspectedCase(Case("x", (tmp_path / "x",), None), grid=grid, content=one, label_content="l")
        for one in "ba"
    ]
    assert content_of(cases) == content_of(same)
    cases[0].label_content = "another"
    assert content_of(cases) != content_of(same)


@needs_onnx
def test_masks_of_onnx_are_those_of_torch(tmp_path: Path) -> None:
    """On a whole scan, window by window of a batch, through the code that `predict.py` uses."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    source, file = (
        network_file(tmp_path / "net.ckpt", "plan.patch=[16,24,16]"),
        tmp_path / "net.onnx",
    )
    assert export([source], file) >= 0.999
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 1, "x", "y", "z"]
    assert '"vessel": 4' in session.get_modelmeta().custom_metadata_map["segpipe"]

    class Onnx(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])

    trained = load(source)
    predictor = Predictor(trained.network, trained.plan, CPU, batch_size=3)
    scan = next((write_phantom(tmp_path / "data", train=1, test=1) / "imagesTs").iterdir())
    ours, theirs = predictor(scan), predictor.with_network(Onnx())(scan)
    assert (ours == theirs).mean() >= 0.999
    assert len(set(ours.flat)) > 1


@needs_onnx
def test_a_2d_network_of_regions_is_exported_too(tmp_path: Path) -> None:
    given = (
        "model=unet2d",
        "plan.patch=[32,16]",
        "data.regions={organs:[1,2],kidneys:[2],vessel:[4]}",
        "data.slice_axis=2",
    )
    assert export([network_file(tmp_path / "net.ckpt", *given)], tmp_path / "net.onnx") >= 0.999


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [["model.up=linear", "model.long_skips=gate"], ["model.short_skips=residual"]]
)
def test_an_ensemble_is_one_network(tmp_path: Path, more: list[str]) -> None:
    files = [
        network_file(tmp_path / f"{seed}.ckpt", "plan.patch=[16,16,16]", *more, seed=seed)
        for seed in (0, 1)
    ]
    assert export(files, tmp_path / "net.onnx") >= 0.999
    trained = load_ensemble(files)
    compute = ONNX.load(tmp_path / "net.onnx")
    assert agreement(trained, compute, noise(trained, [16, 16, 48])) >= 0.999


@needs_onnx
def test_a_network_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segpipe.exporting.formats.agreement", lambda *_: 0.5)
    with pytest.raises(
        SegpipeError, match=r"only 50.00% of voxels are as torch has them, so it was not written"
    ):
        export([network_file(tmp_path / "net.ckpt")], tmp_path / "out" / "net.ts", "torchscript")
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(SegpipeError, match="so it was not written"):
        export([network_file(tmp_path / "net.ckpt")], tmp_path / "out" / "net", "monai_bundle")
    assert not list((tmp_path / "out").iterdir())


def test_without_onnx_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'segpipe\[onnx\]'"):
        export([network_file(tmp_path / "net.ckpt")], tmp_path / "net.onnx")


def write_scan(folder: Path) -> Path:
    """A scan of the networks' spacing, whose axes are turned and inverted."""
    folder.mkdir()
    voxels = np.random.default_rng(0).normal(size=(36, 40, 32)) * 100
    affine = np.array([[0, -2.0, 0, 9], [2.0, 0, 0, -4], [0, 0, -2, 7], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(voxels.astype(np.int16), affine), folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("torchscript", "net.ts", []),
        ("torchscript", "net.pt", ["model=unet2d", "plan.patch=[32,16]", "data.slice_axis=2"]),
        ("torch_export", "net.pt2", []),
    ],
)
def test_a_program_of_torch_needs_no_segpipe(
    tmp_path: Path, kind: ExportFormat, name: str, options: list[str]
) -> None:
    """Its logits are the network's, at another size too; plan and labels stand in the file."""
    source = network_file(tmp_path / "net.ckpt", *(options or ["plan.patch=[16,16,16]"]))
    scan = write_scan(tmp_path / "scans")
    assert export([source], tmp_path / name, kind, [scan]) == 1
    code = (
        "import sys, torch\n"
        "about = {'segpipe.json': ''}\n"
        "image = torch.load(sys.argv[2])\n"
        "if sys.argv[1].endswith('.pt2'):\n"
        "    network = torch.export.load(sys.argv[1], extra_files=about).module()\n"
        "else:\n"
        "    network = torch.jit.load(sys.argv[1], _extra_files=about)\n"
        "assert 'vessel' in str(about['segpipe.json'])\n"
        "assert 'segpipe' not in sys.modules\n"
        "torch.save(network(image).detach(), sys.argv[3])\n"
    )
    trained = load(source)
    image = noise(trained, [48, 32, 16][: trained.plan.dims])
    torch.save(image, tmp_path / "image")
    arguments = [tmp_path / name, tmp_path / "image", tmp_path / "logits"]
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, check=True, timeout=100)
    with torch.inference_mode():
        expected = trained.network(image)
    assert torch.allclose(torch.load(tmp_path / "logits"), expected, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        ["plan.patch=[16,16,16]"],
        ["model=unet2d", "plan.patch=[16,16]", "data.slice_axis=2"],
        [
            "plan.patch=[16,16,16]",
            "data.regions={organs:[1,2],kidneys:[2],vessel:[4]}",
            "plan.normalise=rescale",
        ],
    ],
)
def test_a_monai_bundle_makes_the_masks_of_segpipe(tmp_path: Path, options: list[str]) -> None:
    """Where no interpolation comes between; MONAI runs it by what is in the folder alone."""
    from monai.bundle.workflows import ConfigWorkflow

    source = network_file(tmp_path / "net.ckpt", *options)
    scan = write_scan(tmp_path / "scans")
    bundle = tmp_path / "bundle"
    assert export([source], bundle, "monai_bundle", [scan]) == 1
    given = {"bundle_root": bundle, "dataset_dir": scan.parent, "output_dir": tmp_path / "masks"}
    workflow = ConfigWorkflow(
        str(bundle / "configs/inference.json"),
        str(bundle / "configs/metadata.json"),
        logging_file=False,
        workflow_type="infer",
        **{name: str(path) for name, path in given.items()},
    )
    workflow.initialize()
    workflow.run()
    torch.set_grad_enabled(True)
    trained = load(source)
    expected = Predictor(trained.network, trained.plan, CPU)(scan)
    found = nib.load(tmp_path / "masks" / scan.name)
    assert np.array_equal(found.affine, nib.load(scan).affine)
    assert (np.asanyarray(found.dataobj) == expected).mean() > 0.999
    assert len(np.unique(expected)) > 1
    json.loads((bundle / "configs/metadata.json").read_text())


@pytest.mark.parametrize(
    ("kind", "name", "line"),
    [
        ("torchscript", "net.onnx", "torchscript needs the ending .ts or .pt"),
        ("monai_bundle", "net.ckpt", "is there already; monai_bundle needs a new folder"),
    ],
)
def test_an_output_of_another_kind_is_one_line(
    tmp_path: Path, kind: ExportFormat, name: str, line: str
) -> None:
    source = network_file(tmp_path / "net.ckpt")
    with pytest.raises(ConfigError, match=line):
        export([source], tmp_path / name, kind)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_without_its_package_a_logger_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segpipe.training.loggers.find_spec", lambda _: None)
    with pytest.raises(
        ConfigError,
        match=rf"^logger={name}: {name} is not installed: pip install 'segpipe\[{name}\]'$",
    ):
        check_logger(composed(f"logger={name}").logger)
    check_logger(composed().logger)


@pytest.mark.skipif(
    find_spec("mlflow") is None or find_spec("sqlalchemy") is None, reason="needs MLflow"
)
def test_mlflow_is_told_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    database = f"sqlite:///{tmp_path}/mlflow.db"
    options = composed(
        "logger=mlflow", f"logger.tracking='{database}'", "logger.project=livers", "seed=7"
    )
    check_logger(options.logger)
    with open_logger(options, tmp_path / "deep" / "one") as logger:
        logger.log_metrics({"dice/mean": 0.5}, 3)
        logger.finalize("success")
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("livers")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("deep/one", "FINISHED")
    assert (run.data.metrics["dice/mean"], run.data.params["seed"]) == (0.5, "7")


@pytest.mark.skipif(find_spec("wandb") is None, reason="needs Weights & Biases")
def test_wandb_writes_each_run_into_its_own_folder(tmp_path: Path) -> None:
    options = composed("logger=wandb", "logger.offline=true")
    check_logger(options.logger)
    for name in ("one", "two"):  # the second run of a sweep is not written into the first
        folder = tmp_path / name
        folder.mkdir()
        with open_logger(options, folder) as logger:
            logger.log_metrics({"dice/mean": 0.5}, 3)
        assert len(list(folder.glob("wandb/offline-run-*/run-*.wandb"))) == 1


def test_a_key_of_another_logger_is_one_line() -> None:
    with pytest.raises(ConfigError, match="logger.offline is a key, but not of the chosen logger"):
        check("train", Train, ["logger.offline=true"])


def test_a_run_from_before_a_section_was_there_can_be_resumed(tmp_path: Path) -> None:
    values = defaults("train")
    (tmp_path / "config.yaml").write_text("seed: 5\ntrainer: {}\n")
    found = resumed(values | {"resume": str(tmp_path)}, [f"resume={tmp_path}"])
    assert (found["seed"], found["logger"]) == (5, values["logger"])
    validate(Train, values)
