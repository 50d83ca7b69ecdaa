"""What others get of a run: the checkpoint's card, the network as ONNX, and MLflow or Weights & Biases told of it."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from support.config import composed
from support.plans import fingerprint

from segpipe.card import card
from segpipe.checkpoint import KEY, NETWORK, TrainedOn, load, metadata
from segpipe.config.checkpoint_tools import Card, Export
from segpipe.config.compose import check, defaults
from segpipe.config.train import Train
from segpipe.config.validation import validate
from segpipe.data.cases import Case
from segpipe.data.inspection import InspectedCase
from segpipe.data.phantom import write_phantom
from segpipe.ensembles import load_ensemble
from segpipe.errors import ConfigError, SegpipeError
from segpipe.export import agreement, export
from segpipe.geometry import Grid
from segpipe.nets.build import build
from segpipe.planning.fingerprint import content_of
from segpipe.planning.rules import make_plan
from segpipe.prediction.predictor import Predictor
from segpipe.resume import resumed
from segpipe.training.loggers import check as check_logger
from segpipe.training.loggers import open_logger

needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="needs ONNX: pip install 'segpipe[onnx]'",
)
LABELS = {"background": 0, "liver": 1, "kidneys": 2, "vessel": 4}
CPU = torch.device("cpu")


def network_file(file: Path, *overrides: str, seed: int = 0) -> Path:
    """A checkpoint of a network that was never trained; its weights are wide, so that all labels occur."""
    options = composed("model.channels=[4,8]", *overrides)
    dims = options.model.dims
    plan = make_plan(options, fingerprint((2.0, 2.0, 2.0), (40, 36, 32)), ["MRI"], LABELS, "cpu")
    torch.manual_seed(seed)
    network = build(options.model, 1, plan.outputs, plan.strides, plan.kernels)
    weights = {NETWORK + name: weight for name, weight in network.state_dict().items()}
    data, dice = (
        TrainedOn("Phantom", "c0ffee", 8, 2),
        {"liver": 0.9, "kidneys": 0.8, "vessel": float("nan")},
    )
    about = metadata(options.model_dump(mode="json"), plan, data, dice)
    torch.save({"state_dict": weights, "global_step": 1234 + dims, KEY: about}, file)
    return file


def test_the_card_is_one_screen(tmp_path: Path) -> None:
    lines = card(network_file(tmp_path / "net.ckpt")).splitlines()
    text = "\n".join(lines)
    for words in ("step 1,237", "unet, 3D", "4 vessel", "Phantom: 8 cases train, 2 validate", "c0ffee", "0.9000 liver",
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
    assert agreement(load_ensemble(files), tmp_path / "net.onnx", [16, 16, 48]) >= 0.999


@needs_onnx
def test_a_network_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segpipe.export.agreement", lambda *_: 0.5)
    monkeypatch.setattr(
        "segpipe.export._write", lambda _trained, _window, part: part.write_bytes(b"x")
    )
    with pytest.raises(
        SegpipeError, match=r"only 50.00% of voxels are as torch has them, so it was not written"
    ):
        export([network_file(tmp_path / "net.ckpt")], tmp_path / "out" / "net.onnx")
    assert not list((tmp_path / "out").iterdir())


def test_without_onnx_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'segpipe\[onnx\]'"):
        export([tmp_path / "net.ckpt"], tmp_path / "net.onnx")


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
