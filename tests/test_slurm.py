"""Runs of a sweep as jobs of SLURM; its commands are scripts that run the jobs on this machine."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from support import fake_slurm
from support.commands import TINY, command, started
from support.fake_slurm import Cluster
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segpipe import lock
from segpipe.lock import Holder, own_facts
from segpipe.slurm import requeued

pytest.importorskip(
    "hydra_plugins.hydra_submitit_launcher", reason="needs pip install 'segpipe[slurm]'"
)
JOB_OF_SUBMITIT = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_PROCID": "0"}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    built = fake_slurm.build(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{built.bin}:{os.environ['PATH']}")
    return built


def test_a_job_asks_for_what_was_typed_and_a_lost_one_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = fake_slurm.build(tmp_path / "slurm", lost=True)
    monkeypatch.setenv("PATH", f"{cluster.bin}:{os.environ['PATH']}")
    done = command(
        "train.py", "-m", *TINY, "seed=0,1", "hydra/launcher=slurm", "hydra.launcher.nodes=2",
        "hydra.launcher.tasks_per_node=4", "hydra.launcher.gpus_per_node=4",
        "hydra.launcher.partition=gpu", "hydra.launcher.timeout_min=480", folder=tmp_path,
    )  # fmt: skip
    script = (cluster.state / "100.sbatch").read_text()
    for line in (
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gpus-per-node=4",
        "--cpus-per-task=8",
        "--partition=gpu",
        "--time=480",
        "--mem=32GB",
        "--requeue",
        "--signal=USR2@120",
        "--array=0-1%2",
    ):
        assert f"#SBATCH {line}\n" in script
    assert done.returncode == 1
    assert done.stderr.startswith("segpipe-train: a job of the sweep was lost: ")
    assert "resume=SWEEP goes on with it" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_signal_before_the_end_stops_the_run_and_then_requeues_the_job() -> None:
    said: list[str] = []

    def requeue(*_: object) -> None:
        said.append("requeued")
        raise SystemExit(-1)

    before = signal.signal(signal.SIGUSR2, requeue)
    term = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit), requeued(JOB_OF_SUBMITIT):  # noqa: PT012
            try:
                os.kill(os.getpid(), signal.SIGUSR2)
                time.sleep(1)
            except KeyboardInterrupt:
                said.append("checkpoint kept")
                raise
        assert signal.getsignal(signal.SIGUSR2) is requeue
    finally:
        signal.signal(signal.SIGUSR2, before)
        signal.signal(signal.SIGTERM, term)
    assert said == ["checkpoint kept", "requeued"]


@pytest.mark.parametrize("environment", [{}, JOB_OF_SUBMITIT | {"SLURM_PROCID": "1"}])
def test_other_processes_keep_their_signals(environment: dict[str, str]) -> None:
    before = signal.getsignal(signal.SIGUSR2)
    with requeued(environment):
        assert signal.getsignal(signal.SIGUSR2) is before


@pytest.mark.parametrize(
    ("job", "starts", "gone"), [("7", 0, True), ("7", 1, False), ("8", 0, False), (None, 0, False)]
)
def test_a_requeued_job_is_not_kept_out_by_its_own_lock(
    monkeypatch: pytest.MonkeyPatch, job: str | None, starts: int, gone: bool
) -> None:
    """The node was lost without a last word; the job runs again, on another one."""
    monkeypatch.setenv(lock.JOB, "7")
    monkeypatch.setenv(lock.RESTARTS, "1")
    assert own_facts()["starts"] == 1
    facts = {"host": f"not-{socket.gethostname()}", "pid": 1}
    if job is not None:
        facts |= {"job": job, "starts": starts}
    assert Holder(facts, silent_s=1.0).is_gone == gone


def steps_of(events: Path) -> list[int]:
    """Return the steps of which TensorBoard's file of one part of a run has a loss."""
    loaded = EventAccumulator(str(events)).Reload()
    return [entry.step for entry in loaded.Scalars("loss")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tasks", "how"), [(1, "warn"), (1, "preempt"), (2, "warn"), (2, "preempt")]
)
def test_a_preempted_run_goes_on_by_itself(
    tmp_path: Path, cluster: Cluster, tasks: int, how: str
) -> None:
    """The sweep waits for it, and ends in its report."""
    words = [
        *TINY, "trainer.max_steps=80", "trainer.steps_per_epoch=4", "plan.batch=2", "trainer.device=cpu",
        f"trainer.devices={tasks}", f"hydra.launcher.tasks_per_node={tasks}", "hydra.sweep.dir=runs/swept",
    ]  # fmt: skip
    run = tmp_path / "runs/swept/0"
    with started(
        "train.py", "-m", *words, "hydra/launcher=slurm", "seed=0", folder=tmp_path
    ) as process:
        process.wait_for(run / "checkpoints/last.ckpt")
        getattr(cluster, how)("100")
        done = process.done()
    assert done.returncode == 0, done.stderr + (cluster.state / "100.log").read_text()
    assert cluster.wait_for_end("100") == "COMPLETED"
    _, second = sorted((run / "tensorboard").glob("events*"))
    assert steps_of(second)[0] > 3, "a run that begins anew has its first loss at step 3"
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 80
    assert json.loads((run / "environment.json").read_text())
    assert not (run / "failure.txt").exists()
