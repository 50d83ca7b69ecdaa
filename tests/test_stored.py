"""What an earlier version has written is read, resumed and compared for ever."""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from pydantic import Field
from support.commands import REPOSITORY, command

from segpipe import Predictor
from segpipe.config.predict import Predict
from segpipe.config.section import Section, Was
from segpipe.config.train import Loss, Train
from segpipe.config.validation import keys, validate
from segpipe.ensembles import load_ensemble
from segpipe.errors import ConfigError
from segpipe.plan import Plan
from segpipe.prediction.record_store import RecordStore
from segpipe.reporting.run_record import RunRecord
from segpipe.stored import SCHEMA, complete, read_config, read_plan, read_yaml
from segpipe.training.task import RANDOM_STATES, SegmentationTask

OLD = REPOSITORY / "tests/stored/0.1.0"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of all that segpipe 0.1.0 has left."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def test_an_old_checkpoint_predicts_the_mask_that_it_predicted() -> None:
    mask = Predictor.load(OLD / "run")(OLD / "test/images/case_5.nii.gz")
    stored = np.asarray(nib.load(OLD / "masks/case_5.nii.gz").dataobj)
    assert (mask == stored).mean() > 0.999
    assert set(np.unique(mask)) <= {0, 1, 4}


def test_an_old_run_is_resumed(old: Path) -> None:
    done = command("train.py", "resume=run", "trainer.max_steps=6", folder=old)
    assert done.returncode == 0, done.stderr
    with (old / "run/metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4", "6"]
    assert read_yaml(old / "run/config.yaml")["schema"] == SCHEMA
    assert json.loads((old / "run/split.json").read_text())["val"] == ["case_2"]


def test_an_old_sweep_is_compared(old: Path) -> None:
    done = command("segpipe.study", "sweep", folder=old)
    assert done.returncode == 0, done.stderr
    with (old / "sweep/study.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "mean"]
    assert [row["variant"] for row in rows] == ["long_skips=none", "long_skips=add"]
    assert [round(float(row["dice"]), 4) for row in rows] == [0.0585, 0.0761]


def test_an_old_folder_of_predictions_goes_on(old: Path) -> None:
    before = (old / "masks/case_5.nii.gz").stat().st_mtime_ns
    words = ["checkpoint=run", "input=test/images", "truth=test/labels", "output=masks"]
    words += ["device=cpu", "precision=float32", "save=[mask,entropy]"]
    done = command("predict.py", *words, folder=old)
    assert done.returncode == 0, done.stderr
    assert (old / "masks/case_5.nii.gz").stat().st_mtime_ns == before, "it was computed again"
    record = RecordStore(old / "masks").records["case_5"]
    assert {round(score.dice, 4) for score in record.scores} == {0.0, 0.0361}


def test_card_and_ensemble_open_old_checkpoints(old: Path) -> None:
    done = command("segpipe.card", "checkpoint=sweep/1", folder=old)
    assert done.returncode == 0, done.stderr
    assert "segpipe 0.1.0, step 2" in done.stdout
    pair = load_ensemble([OLD / "sweep/0", OLD / "sweep/1"])
    assert pair.plan.labels == {"background": 0, "label 1": 1, "label 4": 4}


def test_an_old_config_means_what_it_meant() -> None:
    config = read_config("x", read_yaml(OLD / "run/config.yaml"))
    assert validate(Loss, config["loss"]).weights == {"dice": 1.0, "cross_entropy": 1.0}
    assert RunRecord(OLD / "run").loss_name == "dice + cross entropy"
    assert config["data"]["workers"] == 0
    assert config["comparison"] == {"reference": None, "overlays": 3}
    assert config["extensions"] == []
    assert "phantom" not in config["data"]
    assert "describe" not in config["model"]


class Present(Section):
    """A section that has learnt a key since it was stored."""

    channels: int = Field(description="as it was")
    stem_stride: Annotated[int, Was(1)] = Field(description="new; a preset says 2 today")


def test_a_new_key_takes_what_it_meant_and_an_unknown_one_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(2):
        found = complete("old.yaml", Present, {"channels": 4, "gone": True})
        assert found == {"channels": 4, "stem_stride": 1}
    assert [record.getMessage() for record in caplog.records] == [
        "old.yaml: gone is not known here and is ignored"
    ]


@pytest.mark.parametrize("schema", [SCHEMA + 1, "two"])
def test_only_a_newer_schema_is_refused(schema: Any, old: Path) -> None:
    plan = read_yaml(OLD / "run/plan.yaml")
    with pytest.raises(ConfigError, match="was written by a newer segpipe"):
        read_plan("plan.yaml", plan | {"schema": schema})
    with pytest.raises(ConfigError, match="was written by a newer segpipe"):
        read_config("config.yaml", {"schema": schema})


def test_a_newer_file_is_one_line_wherever_it_is_met(old: Path) -> None:
    config = read_yaml(old / "run/config.yaml")
    (old / "run/config.yaml").write_text(yaml.safe_dump(config | {"schema": 99}))
    resumed = command("train.py", "resume=run", folder=old)
    stored = torch.load(old / "run/checkpoints/best.ckpt", weights_only=True)
    stored["segpipe"]["schema"] = 99
    torch.save(stored, old / "run/checkpoints/best.ckpt")
    words = ["checkpoint=run", "input=test/images"]
    predicted = command("predict.py", *words, "output=new", folder=old)
    manifest = json.loads((old / "masks/manifest.json").read_text())
    (old / "masks/manifest.json").write_text(json.dumps(manifest | {"schema": 99}))
    again = command("predict.py", "checkpoint=sweep/0", words[1], "output=masks", folder=old)
    for done in (resumed, predicted, again):
        assert done.returncode == 2
        assert "schema 99" in done.stderr
        assert "Traceback" not in done.stderr


def test_every_key_that_is_new_says_what_it_meant_before() -> None:
    known = set((OLD / "keys.txt").read_text().splitlines())
    kinds = {"train": dict(keys(Train)), "predict": dict(keys(Predict)), "plan": Plan.model_fields}
    renamed = ("loss.", "comparison.", "data.workers", "batch_size")
    for kind, fields in kinds.items():
        for key, field in fields.items():
            if f"{kind} {key}" not in known and not key.startswith(renamed):
                assert any(isinstance(rule, Was) for rule in field.metadata), f"{kind} {key}"


def test_weights_and_their_running_mean_are_taken_up_under_their_present_names() -> None:
    stored: dict[str, Any] = {
        "state_dict": {"network.joins.0.project.weight": 1},
        "current_model_state": {"network.fuses.0.weight": 2},
        RANDOM_STATES: [torch.get_rng_state()],
    }
    task: Any = SimpleNamespace(trainer=SimpleNamespace(strategy=SimpleNamespace()))
    task.trainer.strategy.root_device = torch.device("cpu")
    SegmentationTask.on_load_checkpoint(task, stored)
    assert stored["state_dict"] == {"network.skips.0.project.weight": 1}
    assert stored["current_model_state"] == {"network.decoder_stages.0.weight": 2}


def test_a_loss_term_that_only_an_extension_has_is_never_dropped() -> None:
    config = read_yaml(OLD / "run/config.yaml")
    with pytest.raises(ConfigError, match=r"loss.contour is defined by an extension: give ext"):
        read_config("config.yaml", config | {"loss": {"dice": 1, "contour": 0.5}})


def test_a_newer_split_is_refused(old: Path) -> None:
    split = json.loads((old / "run/split.json").read_text())
    (old / "run/split.json").write_text(json.dumps(split | {"schema": 99}))
    with pytest.raises(ConfigError, match="was written by a newer segpipe"):
        _ = RunRecord(old / "run").split
