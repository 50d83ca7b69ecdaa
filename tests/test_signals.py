"""Signals end a run or a sweep: what is left behind, what is said, and the exit status."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.commands import REPOSITORY, TINY, command, started
from support.pages import Reader

from segpipe import cli
from segpipe.signals import Stopped

LONG = [*TINY, "trainer.max_steps=5000", "trainer.validations=1000"]


def stopped_run(
    folder: Path, number: int, files: list[str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Start a training, send it a signal when these files are there, and return how it ended."""
    with started("train.py", *LONG, *arguments, folder=folder, pictures=False) as process:
        process.wait_for(*[folder / file for file in files])
        process.send_signal(number)
        return process.done()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_a_page_and_says_how_to_go_on(
    tmp_path: Path, number: int, status: int
) -> None:
    files = ["stopped/checkpoints/last.ckpt", "stopped/dice.csv"]
    done = stopped_run(tmp_path, number, files, "hydra.run.dir=stopped")
    assert done.returncode == status, done.stderr
    assert done.stderr == "segpipe-train: interrupted\n"
    assert "interrupted; what there is so far: stopped/report.html" in done.stdout
    assert "go on with: python train.py resume=stopped" in done.stdout
    page = Reader(tmp_path / "stopped/report.html")
    assert page.problems == page.outside == []
    assert "Not done: interrupted" in page.text
    assert "By the last validation during training" in page.text


def test_a_stopped_sweep_says_how_many_runs_are_left(tmp_path: Path) -> None:
    arguments = ["-m", "seed=0,1,2", "hydra.sweep.dir=sweep"]
    files = ["sweep/0/checkpoints/last.ckpt"]
    done = stopped_run(tmp_path, signal.SIGTERM, files, *arguments)
    assert done.returncode == 143
    assert "3 of 3 runs left; go on with: python train.py resume=" in done.stdout
    assert not (tmp_path / "sweep/1").exists()


LOST = """
import signal, sys, time, weakref
from segpipe.signals import exit_status, handle_termination

class Dropped:
    def __del__(self):
        if sys.argv[2] == "finaliser":
            signal.raise_signal(int(sys.argv[1]))

signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored around the tests
handle_termination()
dropped = Dropped()
if sys.argv[2] == "weakref":
    watch = weakref.ref(dropped, lambda _: signal.raise_signal(int(sys.argv[1])))
try:
    del dropped
    print("went on")
    time.sleep(20)
except KeyboardInterrupt as error:
    sys.exit(exit_status(error))
"""


@pytest.mark.parametrize("where", ["finaliser", "weakref"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_python_ignores_is_sent_again(where: str, number: int, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST, str(int(number)), where],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status
    assert done.stdout == "went on\n"
    assert done.stderr == ""


LOSING = """
import signal
from segpipe.cli import train
from segpipe.training.task import SegmentationTask

class Dropped:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)

def step(task, *batch):
    if task.global_step == 4:
        Dropped()
    return taken(task, *batch)

taken, SegmentationTask.training_step = SegmentationTask.training_step, step
train()
"""


def test_an_interruption_that_python_ignores_ends_a_run(tmp_path: Path) -> None:
    """What is raised in a finaliser goes no further."""
    script = tmp_path / "losing.py"
    script.write_text(LOSING)
    arguments = [*TINY, "trainer.max_steps=60", "hydra.run.dir=stopped"]
    done = command(str(script), *arguments, folder=tmp_path, pictures=False)
    assert done.returncode == 130
    assert "go on with: python train.py resume=stopped" in done.stdout
    trained = torch.load(tmp_path / "stopped/checkpoints/last.ckpt", weights_only=True)
    assert trained["global_step"] == 5, "the step in which it was asked for"


INTERRUPTED = """
import signal, sys
from segpipe.cli import train
from segpipe.training.task import SegmentationTask

asked = []

def step(task, *batch):
    if task.global_step == AT and not asked:
        asked.append(True)
        signal.raise_signal(signal.SIGTERM)
    return taken(task, *batch)

taken, SegmentationTask.training_step = SegmentationTask.training_step, step
train()
"""
EPOCHS_OF_FIVE = ["trainer.max_steps=20", "trainer.steps_per_epoch=5", "trainer.validations=2"]


@pytest.fixture(scope="module", params=["trainer.accumulate=1", "trainer.accumulate=2"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody stops, and its last words."""
    folder = tmp_path_factory.mktemp("whole")
    words = [*TINY, *EPOCHS_OF_FIVE, "plan.batch=2", request.param, "optim.ema=0.9"]
    (folder / "words").write_text("\n".join(words))
    assert command("train.py", *words, folder=folder, pictures=False).returncode == 0
    return folder


@pytest.mark.parametrize(
    ("asked_in", "kept"),
    [
        (6, 7),  # in the middle of an epoch
        (4, 5),  # at its end
        (9, 5),  # before a validation, which Lightning would pass over
    ],
)
def test_the_step_in_hand_is_kept(whole: Path, tmp_path: Path, asked_in: int, kept: int) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED.replace("AT", str(asked_in)))
    words = (whole / "words").read_text().splitlines()
    given = {"folder": tmp_path, "pictures": False}
    assert command(str(script), *words, "hydra.run.dir=run", **given).returncode == 143
    last = tmp_path / "run/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == kept
    done = command("train.py", "resume=run", **given)
    assert done.returncode == 0, done.stderr
    assert "Lightning" not in done.stdout + done.stderr
    unstopped = torch.load(next(whole.glob("runs/**/last.ckpt")), weights_only=True)
    ended = torch.load(last, weights_only=True)
    assert ended["global_step"] == unstopped["global_step"] == 20
    for part in ("state_dict", "current_model_state"):
        for name, weight in unstopped[part].items():
            assert torch.equal(ended[part][name], weight), name
    tables = [next(folder.glob("**/metrics.csv")).read_text() for folder in (whole, tmp_path)]
    assert tables[0] == tables[1]


def test_the_step_in_hand_is_kept_at_the_warning_of_a_scheduler(tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    warned = "from segpipe.signals import stop\nsignal.signal(signal.SIGUSR2, stop)\ntrain()"
    text = INTERRUPTED.replace("AT", "1").replace("SIGTERM", "SIGUSR2").replace("train()", warned)
    script.write_text(text)
    words = [*TINY, "trainer.steps_per_epoch=5", "hydra.run.dir=run"]
    done = command(str(script), *words, folder=tmp_path, pictures=False)
    assert done.returncode == 128 + signal.SIGUSR2, done.stderr
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 2


def _interrupted_on_the_way_out(*_: object) -> None:
    """Fail as a library does that restores a state which a signal has left incomplete."""
    try:
        raise Stopped(signal.SIGTERM)
    finally:
        {}["state"]


def test_an_error_on_the_way_out_is_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(cli, "handle_termination", lambda: None)
    monkeypatch.setattr(cli, "_run_jobs", _interrupted_on_the_way_out)
    with pytest.raises(SystemExit) as ended:
        cli.train()
    assert ended.value.code == 143
    with pytest.raises(Stopped):
        cli._run_isolated(_interrupted_on_the_way_out, tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir()), "the run of a sweep is not noted as failed"
