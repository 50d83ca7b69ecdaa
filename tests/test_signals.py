"""Signals end a run or a sweep: what is left behind, what is said, and the exit status."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.commands import ONE_THREAD, REPOSITORY, TINY
from support.pages import Reader

LONG = [*TINY, "trainer.max_steps=5000", "trainer.validations=1000"]


def stopped_run(
    folder: Path, number: int, files: list[str], *arguments: str
) -> tuple[int, str, str]:
    """Start a training, send it a signal when these files are there, and return how it ended."""
    with subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), *LONG, *arguments],
        cwd=folder,
        env=os.environ | ONE_THREAD,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not all((folder / file).is_file() for file in files):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        said, complained = process.communicate()
    return process.returncode, said, complained


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_a_page_and_says_how_to_go_on(
    tmp_path: Path, number: int, status: int
) -> None:
    files = ["stopped/checkpoints/last.ckpt", "stopped/dice.csv"]
    returned, said, complained = stopped_run(tmp_path, number, files, "hydra.run.dir=stopped")
    assert returned == status, complained
    assert complained == "segpipe-train: interrupted\n"
    assert "interrupted; what there is so far: stopped/report.html" in said
    assert "go on with: python train.py resume=stopped" in said
    page = Reader(tmp_path / "stopped/report.html")
    assert page.problems == page.outside == []
    assert "Not done: interrupted" in page.text
    assert "By the last validation during training" in page.text


def test_a_stopped_sweep_says_how_many_runs_are_left(tmp_path: Path) -> None:
    arguments = ["-m", "seed=0,1,2", "hydra.sweep.dir=sweep"]
    files = ["sweep/0/checkpoints/last.ckpt"]
    returned, said, _ = stopped_run(tmp_path, signal.SIGTERM, files, *arguments)
    assert returned == 143
    assert "3 of 3 runs left; go on with: python train.py resume=" in said
    assert not (tmp_path / "sweep/1").exists()


LOST = """
import signal, sys, time, weakref
from segpipe.signals import exit_status, handle_termination

class Dropped:
    def __del__(self):
        if sys.argv[2] == "finaliser":
            signal.raise_signal(int(sys.argv[1]))

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
    arguments = [*TINY, "trainer.max_steps=60", "hydra.run.dir=stopped"]
    env = os.environ | ONE_THREAD | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", LOSING, *arguments],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 130
    assert "go on with: python train.py resume=stopped" in done.stdout
    trained = torch.load(tmp_path / "stopped/checkpoints/last.ckpt", weights_only=True)
    assert trained["global_step"] == 3, "an epoch before the step in which it was asked for"
