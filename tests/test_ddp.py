"""Several devices train as one: two processes of the CPU, held against one."""

import csv
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses.dice import DiceLoss
from support.commands import ONE_THREAD, REPOSITORY, TINY, command
from support.config import composed
from support.pages import Reader
from support.plans import fingerprint
from support.ranks import CPU, on_two
from torch import Tensor

from segpipe.config.train import Train
from segpipe.data.patches import ContinuingSampler
from segpipe.dealing import take_gpu
from segpipe.errors import ConfigError
from segpipe.launchers import check_sweep, given_place
from segpipe.plan import Plan
from segpipe.planning.devices import for_devices
from segpipe.planning.rules import make_plan
from segpipe.ranks import ALONE, Ranks, collected
from segpipe.registry import LOSSES
from segpipe.run import Run
from segpipe.training.callbacks.interrupt import follow_the_first
from segpipe.training.job import Job, dismiss, follow
from segpipe.training.loss import SegmentationLoss
from segpipe.training.task import SegmentationTask

LABELS = {"background": 0, "organ": 1, "vessel": 2}
REGIONS = "data.regions={both:[1,2],vessel:[2]}"


def plan(*overrides: str) -> Plan:
    options = composed(*overrides)
    return make_plan(options, fingerprint((1, 1, 1), (64, 64, 64)), ["MRI"], LABELS, "cpu")


def loss_and_gradient(
    loss: SegmentationLoss, logits: Tensor, label: Tensor
) -> tuple[Tensor, Tensor]:
    own = logits.clone().requires_grad_()
    value = loss([own, own[..., ::2, ::2, ::2]], label)
    value.backward()
    assert own.grad is not None
    return value.detach(), own.grad


@pytest.mark.parametrize("annotated", ["labels", "regions", "ignoring"])
def test_every_term_over_two_devices_is_that_of_one(annotated: str) -> None:
    """Also where one device holds all voxels of a label, or fewer annotated ones."""
    rng = torch.Generator().manual_seed(0)
    words = [REGIONS] if annotated == "regions" else []
    if annotated == "ignoring":
        words = ["data.ignore_label=3"]
    planned = plan(*words)
    classes = planned.outputs
    logits = torch.randn(4, classes, 8, 8, 8, generator=rng)
    label = torch.randint(0, 3, (4, 1, 8, 8, 8), generator=rng, dtype=torch.uint8)
    label[:2][label[:2] == 2] = 0
    if annotated == "ignoring":
        label[0, :, 2:] = 255
    names = [name for name in LOSSES.names() if annotated != "ignoring" or name != "cldice"]
    losses = {name: SegmentationLoss(planned, {name: 1.0}, None) for name in names}

    def halves(ranks: Ranks) -> dict[str, tuple[Tensor, Tensor]]:
        own = slice(2 * ranks.rank, 2 * ranks.rank + 2)
        found = {}
        for name, loss in losses.items():
            value, gradient = loss_and_gradient(loss, logits[own], label[own])
            found[name] = (value.numpy(), gradient.numpy())
        return found

    first, second = on_two(halves)
    for name, loss in losses.items():
        value, gradient = loss_and_gradient(loss, logits, label)
        mean = (first[name][0] + second[name][0]) / 2
        assert mean == pytest.approx(float(value), rel=1e-5), name
        both = torch.cat([torch.from_numpy(first[name][1]), torch.from_numpy(second[name][1])]) / 2
        torch.testing.assert_close(both, gradient, rtol=1e-4, atol=1e-7, msg=name)


def test_dice_of_one_device_is_monais() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 7, 6, 5, generator=rng)
    label = torch.randint(0, 3, (2, 1, 7, 6, 5), generator=rng, dtype=torch.uint8)
    monai = DiceLoss(include_background=False, softmax=True, to_onehot_y=True, batch=True)
    theirs = logits.clone().requires_grad_()
    own = logits.clone().requires_grad_()
    expected = monai(theirs, label)
    found = SegmentationLoss(plan(), {"dice": 1.0})(own, label)
    expected.backward()
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert own.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-5, atol=1e-9)


# --- what is dealt out


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_what_is_dealt_out_is_collected_without_doubles(number: int) -> None:
    items = list(range(number))
    shares = [Ranks(rank, 3).dealt(items) for rank in range(3)]
    assert collected(shares) == items
    assert sum(map(len, shares)) == number


def test_the_devices_share_each_batch_and_go_on_where_they_stopped() -> None:
    samplers = [ContinuingSampler(16, 8, device, 2, batch=4) for device in range(2)]
    for start in (16, 24):  # two epochs
        numbers = [list(sampler) for sampler in samplers]
        assert numbers[0] == [start, start + 1, start + 4, start + 5]
        assert numbers[1] == [start + 2, start + 3, start + 6, start + 7]
    assert len(samplers[0]) == 4


def test_patches_go_on_in_the_middle_of_an_epoch() -> None:
    sampler = ContinuingSampler(first=14, size=10)
    assert list(sampler) == list(range(14, 20))
    assert list(sampler) == list(range(20, 30))
    assert len(sampler) == 10


def test_a_batch_that_the_devices_cannot_share_is_one_line() -> None:
    planned = plan("plan.batch=3", "plan.patch=[16,16,16]")
    with pytest.raises(ConfigError, match=r"plan\.batch is 3 .* give plan\.batch=4"):
        Ranks(size=2).patches(planned)
    assert Ranks(size=3).patches(planned) == 1
    assert for_devices(planned, 2, given=3) is planned
    raised = for_devices(planned, 2, given=None)
    assert raised.batch == 4
    assert Ranks(size=2).patches(raised) == 2


# --- how it is started


def test_torchrun_and_srun_give_each_process_its_place() -> None:
    two = composed("trainer.device=cpu", "trainer.devices=2").trainer
    torchrun = {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "9",
        "LOCAL_WORLD_SIZE": "2",
    }
    place = given_place(two, torchrun)
    assert (place.rank, place.size, place.local_rank, place.sharing) == (1, 2, 1, 2)
    assert (place.address, place.port, place.is_held) == ("a", 9, False)
    nodes = composed("trainer.device=cpu", "trainer.nodes=2").trainer
    srun = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
    assert given_place(composed().trainer, srun).size == 1, "tasks that are runs of their own"
    assert given_place(two, {}).size == 1, "this process starts the other"
    with pytest.raises(ConfigError, match="of 2 devices, but 3 were started"):
        given_place(two, {**torchrun, "WORLD_SIZE": "3"})
    with pytest.raises(ConfigError, match="without torchrun"):
        check_sweep(torchrun)
    check_sweep({})
    with pytest.raises(ConfigError, match="by srun or by torchrun --nnodes=2"):
        given_place(nodes, {})


def test_srun_gives_the_first_host_and_one_port() -> None:
    srun = {
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_JOB_ID": "123456",
        "SLURM_STEP_NODELIST": "gpu[07-08]",
    }
    options = composed("trainer.device=cuda", "trainer.devices=2", "trainer.nodes=2").trainer
    place = given_place(options, srun)
    assert (place.rank, place.size, place.local_rank, place.sharing) == (3, 4, 1, 1)
    assert (place.address, place.port) == ("gpu07", 18456)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trainer.devices=0", "trainer.devices"),
        ("trainer.devices=some", "trainer.devices"),
        ("trainer.device=cuda:1 trainer.devices=2", "trainer.device=cuda:1 is one device"),
    ],
)
def test_a_wrong_number_of_devices_is_one_line(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        composed(*words.split())
    assert len(str(caught.value).splitlines()) == 1


def test_each_process_of_a_sweep_takes_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes and two GPUs: two share one. Another one takes the place of one that ended."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    trainer = {"device": "auto", "devices": 1}
    context = multiprocessing.get_context("fork")
    taken = context.SimpleQueue()
    together = context.Barrier(3)

    def take() -> None:
        take_gpu(tmp_path, {"device": "cuda:1", "devices": 1})
        assert "CUDA_VISIBLE_DEVICES" not in os.environ, "one that was named"
        for _ in range(2):  # runs
            take_gpu(tmp_path, trainer)
        taken.put(os.environ["CUDA_VISIBLE_DEVICES"])
        together.wait(60)

    for _ in range(2):
        processes = [context.Process(target=take) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert sorted(taken.get() for _ in processes) == ["0", "0", "1"]


# --- trainings

WORDS = [*TINY, "plan.batch=2", "trainer.device=cpu", "trainer.postprocess=false", "trainer.max_steps=3", "trainer.precision=float32",
         "optim=sgd", "optim.schedule=constant", "optim.warmup=0", "trainer.validations=1"]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the dataset and its cache, and for runs."""
    return tmp_path_factory.mktemp("home")


def options_of(home: Path, *words: str) -> Train:
    return composed(*WORDS, f"data.root={home}/phantom", f"data.cache={home}/cache", *words)


def trained(folder: Path, devices: int, *words: str, clocks: bool = False) -> Tensor:
    """Train in a folder, or go on there with `resume=`; return the weights, of all devices the same.

    Args:
        folder: of the run.
        devices: that train: one or two.
        words: more overrides.
        clocks: let the first device's clock go by steps, 6 of which spend the budget, and let the
            second one's say at once that it is spent.
    """
    options = options_of(folder.parent, f"trainer.devices={devices}", *words)

    def part(ranks: Ranks) -> Any:
        tasks: list[SegmentationTask] = []
        make = Job.task

        def remembered(job: Job, *arguments: Any) -> SegmentationTask:
            tasks.append(make(job, *arguments))
            return tasks[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Job, "task", remembered)
            if clocks:
                patch.setattr(SegmentationTask, "spent", by_steps if ranks.is_first else all_spent)
            if ranks.is_first:
                run = Run(options, folder, words, ranks)
                run.prepare()
                run.train()
                dismiss(ranks)
            else:
                follow_the_first()
                follow(ranks, CPU)
        return torch.cat([weight.flatten() for weight in tasks[0].parameters()]).detach().numpy()

    found = [part(ALONE)] if devices == 1 else on_two(part)
    for weights in found:
        assert np.array_equal(weights, found[0]), "all devices hold the same weights"
    return torch.from_numpy(found[0])


def by_steps(task: SegmentationTask) -> float:
    return task.trainer.global_step / 6


def all_spent(task: SegmentationTask) -> float:
    return 1.0


def assert_as_one(weights: Tensor, expected: Tensor, begin: Tensor) -> None:
    """Check that two trainings agree but for the rounding of their sums."""
    moved = (expected - begin).norm()
    assert moved > 0.01, "a training that moves the weights"
    assert (weights - expected).norm() < 1e-3 * moved


def initial(folder: Path) -> Tensor:
    """Return the weights with which the runs begin."""
    run = Run(options_of(folder.parent), folder, [])
    run.prepare()
    return torch.cat([weight.flatten() for weight in run.network.parameters()]).detach()


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_two_devices_train_as_one_and_go_on_as_one(home: Path) -> None:
    """The loss with its Dice term, steps, epochs, patches, and a resume from 1 to 2 and from 2 to 1.

    There is one validation case, so that the second device has none.
    """
    begin = initial(home / "begin")
    one = trained(home / "one", 1)
    two = trained(home / "two", 2)
    assert_as_one(two, one, begin)
    for name in ("one", "two"):
        shutil.copytree(home / name, home / f"{name}_on")
    alone, beside = rows(home / "one/metrics.csv"), rows(home / "two/metrics.csv")
    assert [row["step"] for row in beside] == [row["step"] for row in alone] == ["3"]
    assert float(beside[0]["loss"]) == pytest.approx(float(alone[0]["loss"]), rel=1e-5)

    more = "trainer.max_steps=6"
    whole = trained(home / "one", 1, more, f"resume={home}/one")
    from_two = trained(home / "two_on", 1, more, f"resume={home}/two_on")
    from_one = trained(home / "one_on", 2, more, f"resume={home}/one_on")
    assert (whole - one).norm() > 0.01
    assert_as_one(from_two, whole, begin)
    assert_as_one(from_one, whole, begin)


def test_cases_are_validated_once_each_and_by_one_clock(home: Path) -> None:
    """Three cases on two devices, a budget of time, and a second device whose clock is wrong."""
    words = ["data.folds=2", "data.fold=0", "optim.ema=0.9", "optim.schedule=cosine"]
    words += ["trainer.max_steps=null", "trainer.max_time=60"]
    words += ["trainer.validations=2", "trainer.steps_per_epoch=2", "trainer.patience=5"]
    trained(home / "timed", 2, *words, clocks=True)
    validated = rows(home / "timed/dice.csv")
    cases = [row["case"] for row in validated if row["label"] == validated[0]["label"]]
    assert cases == json.loads((home / "timed/split.json").read_text())["val"]
    assert len(cases) == 3
    epochs = rows(home / "timed/metrics.csv")
    assert [row["step"] for row in epochs] == ["2", "4", "6"], "the second clock ends nothing"
    assert [bool(row["dice/mean"]) for row in epochs] == [False, True, True], "at steps 3 and 6"
    of_labels: dict[str, list[float]] = {row["label"]: [] for row in validated}
    for row in validated:
        of_labels[row["label"]].append(float(row["dice"]))
    mean = np.nanmean([np.nanmean(values) for values in of_labels.values()])
    assert float(epochs[-1]["dice/mean"]) == pytest.approx(mean), "over the cases of both"


# --- commands


def started(home: Path, *words: str) -> subprocess.Popen[str]:
    call = [sys.executable, str(REPOSITORY / "train.py"), *WORDS, *words]
    env = os.environ | ONE_THREAD
    pipe = subprocess.PIPE
    return subprocess.Popen(
        call, cwd=home, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def is_gone(group: int) -> bool:
    """Return whether all processes of a group end within a few seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),  # as a terminal sends it, to all processes
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),  # to the first one alone
    ],
)
def test_a_signal_ends_all_processes_with_a_page(home: Path, number: int, status: int) -> None:
    folder = home / f"stopped_{number}"
    long = ["trainer.max_steps=5000", "trainer.validations=1000", "trainer.devices=2"]
    with started(home, *long, f"hydra.run.dir={folder}") as process:
        while not all((folder / file).is_file() for file in ("checkpoints/last.ckpt", "dice.csv")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        said, complained = process.communicate(timeout=60)
    assert process.returncode == status, complained
    assert complained.splitlines()[-1] == "segpipe-train: interrupted"
    assert "Traceback" not in complained
    assert "go on with: python train.py resume=" in said
    assert "Not done: interrupted" in Reader(folder / "report.html").text
    assert is_gone(process.pid)


def test_each_run_of_a_sweep_has_its_processes_and_writes_once(home: Path) -> None:
    words = ["-m", "seed=0,1", "trainer.devices=2", "hydra.sweep.dir=sweep", "model.channels=[4,6]"]
    done = command("train.py", *WORDS, *words, folder=home)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.parent.name for path in home.glob("sweep/[0-9]*/config.yaml")) == ["0", "1"]
    for run in (home / "sweep/0", home / "sweep/1"):
        log = (run / "train.log").read_text()
        for line in (
            "1 patches a step on each of 2 devices",
            "2 devices (cpu, DDP over gloo)",
            "network: ",
        ):
            assert log.count(line) == 1, log
        environment = json.loads((run / "environment.json").read_text())
        assert " -m " in environment["command"]
        assert (run / "report.html").is_file()
        assert len(list((run / "tensorboard").rglob("events*"))) == 1
    assert not list(home.glob("runs/*")), "no process has begun a sweep of its own"


def by_torchrun(folder: Path, words: list[str]) -> list[subprocess.Popen[str]]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    return [launched([*launcher, str(REPOSITORY / "train.py"), *words], folder, {})]


def by_srun(folder: Path, words: list[str]) -> list[subprocess.Popen[str]]:
    """Start what srun would, the second task first."""
    shared = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_JOB_ID": str(os.getpid()),
    }
    tasks = []
    for rank in ("1", "0"):
        own = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}
        call = [sys.executable, str(REPOSITORY / "train.py"), *words]
        tasks.append(launched(call, folder, shared | own))
        time.sleep(1.5)  # so that they would name their folders by other seconds
    return tasks


def launched(call: list[str], folder: Path, more: dict[str, str]) -> subprocess.Popen[str]:
    env = os.environ | ONE_THREAD | more
    pipe = subprocess.PIPE
    return subprocess.Popen(call, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("start", [by_torchrun, by_srun])
def test_processes_of_a_launcher_have_one_folder(tmp_path: Path, start: Callable) -> None:
    said = ""
    for process in start(tmp_path, [*WORDS, "trainer.devices=2"]):
        printed, complained = process.communicate(timeout=600)
        assert process.returncode == 0, complained
        said += printed
    runs = [path for path in tmp_path.glob("runs/segpipe/*") if not path.is_symlink()]
    assert len(runs) == 1
    assert (runs[0] / "report.html").is_file()
    assert said.count("2 devices (cpu, DDP over gloo)") == 1


@pytest.mark.slow
def test_a_process_that_the_system_ends_is_named(home: Path) -> None:
    long = ["trainer.max_steps=5000", "trainer.devices=2", "hydra.run.dir=killed"]
    with started(home, *long) as process:
        while not (home / "killed/checkpoints/last.ckpt").is_file():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in map(int, listed):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(child, signal.SIGKILL)
        _, complained = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "device 1 ended by signal 9, as where memory is scarce" in complained
    assert "Traceback" not in complained
    assert (home / "killed/report.html").is_file()
