"""`python -m segpipe.probe` as a user runs it, and the changes that it makes to scans."""

import csv
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from support.commands import REPOSITORY, TINY, command

from segpipe import checkpoint
from segpipe.config.compose import defaults
from segpipe.config.probe import Landscape, Lesion, Robustness
from segpipe.config.validation import validate
from segpipe.data.degradation import CHANGES, degrade
from segpipe.errors import ConfigError
from segpipe.probe.landscape import landscape
from segpipe.probe.lesion import lesion
from segpipe.probe.robustness import robustness
from segpipe.probe.trained import find_cases, open_runs, tell_apart


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    done = command(
        "train.py", *TINY, "trainer.gradient_flow=true", "hydra.run.dir=runs/a/one", folder=folder
    )
    assert done.returncode == 0, done.stderr
    return folder


def options(schema: Any, folder: Path, **given: object) -> Any:
    values = defaults(schema.__name__.lower()) | {
        "checkpoint": str(folder / "runs/a/one"),
        "precision": "float32",
    }
    return validate(schema, values | {"data_root": str(folder / "data/phantom")} | given)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open() as opened:
        return list(csv.DictReader(opened))


def probe(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return command("segpipe.probe", *arguments, folder=folder)


def test_a_training_leaves_its_gradient_flow(trained: Path) -> None:
    found = rows(trained / "runs/a/one/gradient_flow.csv")
    assert {row["epoch"] for row in found} == {"0", "1"}
    assert {row["stage"] for row in found} == {"encoder 0", "encoder 1", "decoder 0", "head 0"}
    for row in found:
        assert float(row["relative_gradient"]) > 0
        assert float(row["relative_step"]) > 0
    assert (trained / "runs/a/one/gradient_flow.png").is_file()


def test_a_resumed_run_keeps_what_it_had_measured(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained / "runs/a/one", run)
    before = rows(run / "gradient_flow.csv")
    words = [f"resume={run}", "trainer.max_steps=9"]
    done = command("train.py", *words, folder=trained, pictures=False)
    assert done.returncode == 0, done.stderr
    after = rows(run / "gradient_flow.csv")
    assert after[: len(before)] == before
    assert [row["epoch"] for row in after[len(before) :]] == ["2"] * (len(before) // 2)


def test_the_command_line_helps_and_refuses(trained: Path) -> None:
    done = probe("lesion", "checkpoint=runs/a/one", "lesions=[zero]", folder=trained)
    assert done.returncode == 0, done.stderr
    assert "Dice lost" in done.stdout
    done = probe("lesoin", folder=trained)
    assert (done.returncode, "Did you mean 'lesion'?" in done.stderr) == (2, True)
    done = probe("landscape", "checkpont=x", folder=trained)
    assert (done.returncode, done.stderr) == (
        2, "segpipe-landscape: checkpont is not a key. Did you mean 'checkpoint'? (--help lists all)\n",
    )  # fmt: skip
    done = probe("robustness", "checkpoint=nowhere", folder=trained)
    assert (done.returncode, "nowhere: no such checkpoint" in done.stderr) == (2, True)
    (trained / "depth").mkdir(exist_ok=True)  # as an earlier call leaves it: no sweep to report
    done = probe("depth", "--help", folder=trained)
    assert done.returncode == 0
    assert "python -m segpipe.probe depth" in done.stdout


def test_the_old_name_of_a_probe_says_the_new_one() -> None:
    done = command("segpipe.study", "depth", "--help", folder=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ("segpipe.study: depth has a new name: python -m segpipe.probe depth\n")
    assert "python -m segpipe.probe depth" in done.stdout


def test_lesions_are_scored_case_by_case(trained: Path, tmp_path: Path) -> None:
    given = options(Lesion, trained, output=str(tmp_path), cases=["unseen_000", "unseen_001"])
    assert lesion(given) == 0
    found = rows(tmp_path / "lesion.csv")
    assert {(row["skip"], row["lesion"]) for row in found} == {
        ("", "none"), ("level 0", "zero"), ("level 0", "mean"), ("level 0", "shuffle"),
    }  # fmt: skip
    assert {row["case"] for row in found} == {"unseen_000", "unseen_001"}
    assert (tmp_path / "lesion.png").stat().st_size > 10_000


def test_an_unused_skip_loses_exactly_nothing(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "runs/a/one", tmp_path / "run")
    for file in (tmp_path / "run/checkpoints").glob("*.ckpt"):
        stored = torch.load(file, weights_only=True)
        stored["state_dict"]["network.decoder_stages.0.0.0.0.weight"][:, 4:] = 0
        torch.save(stored, file)
    given = options(
        Lesion,
        trained,
        checkpoint=str(tmp_path / "run"),
        output=str(tmp_path / "out"),
        cases=["unseen_000", "unseen_001"],
    )
    assert lesion(given) == 0
    found = rows(tmp_path / "out/lesion.csv")
    lost = np.array([[float(row["dice_lost"]), float(row["nsd_lost"])] for row in found])
    assert (lost == 0).any()
    assert np.all((lost == 0) | np.isnan(lost))


def test_one_case_cannot_be_shuffled(trained: Path) -> None:
    with pytest.raises(ConfigError, match="shuffle needs two cases, there is 1"):
        lesion(options(Lesion, trained, cases=["unseen_000"]))
    with pytest.raises(ConfigError, match="has no labelled case unseen_01. Did you mean 'unseen_0"):
        lesion(options(Lesion, trained, cases=["unseen_01"]))


def test_landscapes_stand_beside_each_other(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(trained / "runs/a/one")
    given = options(
        Landscape,
        trained,
        checkpoint=[run, run],
        output=str(tmp_path),
        max_time="00:00:00:01",
        patches=2,
    )
    assert landscape(given) == 0
    found = rows(tmp_path / "landscape.csv")
    steps = {row["first"] for row in found}
    assert "0.0" in steps
    points = len(steps) ** 2
    assert len(found) == 2 * points
    for name in ("profile.png", "contour.png", "surface.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    losses = np.array([float(row["loss"]) for row in found[:points]])
    offsets = np.array([[float(row["first"]), float(row["second"])] for row in found[:points]])
    distance = np.abs(offsets).max(axis=1)
    output = capsys.readouterr().out
    centre = losses[distance == 0][0]
    for value in (centre, losses[distance <= 0.5].mean(), losses.mean(), losses.max()):
        assert output.count(f" {value:.4g} ") >= 2  # both are the same network


def test_robustness_starts_from_the_clean_scan(trained: Path, tmp_path: Path) -> None:
    given = options(
        Robustness, trained, output=str(tmp_path), noise=[5], blur_mm=[], coarser=[2], bias=[0.2]
    )
    assert robustness(given) == 0
    found = rows(tmp_path / "robustness.csv")
    assert {row["change"] for row in found} == {"", "noise", "bias", "coarser"}
    clean = {(row["case"], row["label"]): float(row["dice"]) for row in found if not row["change"]}
    scored = rows(trained / "runs/a/one/validation.csv")
    assert {(row["case"], row["label"]) for row in scored} == set(clean)
    assert (tmp_path / "robustness.png").is_file()
    assert (tmp_path / "examples.png").is_file()


def test_cases_are_those_that_validated_and_training_cases_are_warned_of(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = options(Lesion, trained)
    run = open_runs(given)[0]
    names = [case.name for case in find_cases(given, run.trained)]
    assert names == [row["case"] for row in rows(trained / "runs/a/one/validation.csv")][:1]
    training_case = "phantom_000" if "phantom_000" not in names else "phantom_001"
    find_cases(options(Lesion, trained, cases=[training_case]), run.trained)
    assert f"was trained on 1 of 1 case, as {training_case}" in caplog.text


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("shape", [(2, 12, 10, 8), (1, 12, 10, 1)])
def test_a_change_grows_with_its_strength(change: str, shape: tuple[int, ...]) -> None:
    affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0])).double()
    scan = MetaTensor(100 + torch.randn(shape, generator=torch.Generator().manual_seed(0)), affine)
    weak = degrade(scan, change, 1.5, seed=0)
    strong = degrade(scan, change, 4.0, seed=0)
    again = degrade(scan, change, 4.0, seed=0)
    assert weak.shape == scan.shape
    assert torch.equal(weak.affine, scan.affine)
    assert torch.equal(strong, again)
    assert 0 < float((weak - scan).abs().mean()) < float((strong - scan).abs().mean())
    assert torch.equal(degrade(scan, change, 0.0, seed=0), scan)


def test_noise_is_a_share_of_each_channels_own_deviation() -> None:
    rng = torch.Generator().manual_seed(0)
    scan = torch.randn(2, 40, 40, 40, generator=rng)
    scan[1] *= 50
    added = degrade(MetaTensor(scan, torch.eye(4).double()), "noise", 0.5, seed=0) - scan
    shares = added.std((1, 2, 3)) / scan.std((1, 2, 3))
    assert shares.tolist() == pytest.approx([0.5, 0.5], rel=0.02)


def test_runs_are_told_apart_by_what_differs() -> None:
    first: dict[str, Any] = {
        "name": "a",
        "seed": 0,
        "model": {"long_skips": "none", "channels": [1]},
    }
    second = {"name": "b", "seed": 0, "model": {"long_skips": ["concat", "none"], "channels": [2]}}
    assert tell_apart([first, second], ["x", "y"]) == [
        "long_skips=none",
        "long_skips=[concat, none]",
    ]
    assert tell_apart([first, first], ["x", "y"]) == ["x", "y"]
    there, elsewhere = {"data": {"root": "a"}}, {"data": {"root": "b"}}
    assert tell_apart([first | there, second | elsewhere], ["x", "y"])[0] == "long_skips=none"
    assert tell_apart([first | there, first | elsewhere], ["x", "y"]) == ["root=a", "root=b"]


def test_a_checkpoint_is_opened_as_it_was_saved(trained: Path) -> None:
    run = open_runs(options(Lesion, trained))[0]
    saved = checkpoint.load(trained / "runs/a/one").network.state_dict()
    for name, value in run.trained.network.state_dict().items():
        assert torch.equal(value, saved[name]), name
