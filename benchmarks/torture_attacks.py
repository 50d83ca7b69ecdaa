"""The attacks of `torture.py`."""

import csv
import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from step import options_of
from synthetic import plan_of_ct, write_checkpoint
from torture_arena import Arena, Attack, Ended, WrongError

from segpipe.nets.build import build

NAMES = [f"case_{number}" for number in range(6)]
PREDICT = ("checkpoint=some.ckpt", "input=in", "output=out", "device=cpu", "overlays=false")
TRAIN = ("model.channels=[4,8]", "data.phantom.train=6", "data.phantom.test=1", "plan.batch=1",
         "plan.patch=[32,32,32]", "trainer.max_steps=12", "trainer.steps_per_epoch=3",
         "trainer.validations=4", "data.workers=0", "trainer.device=cpu",
         "data.cache=cache")  # fmt: skip
ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}


def attacks(folder: Path, only: Sequence[str] | None) -> dict[str, Attack]:
    """Return the attacks by name; what they begin with is made once.

    Args:
        folder: for the undisturbed scans, masks and run.
        only: names of those that are wanted; None: all.
    """
    predicting = {
        "signal": predict_signal,
        "two_at_once": predict_two,
        "full_disk": predict_full,
        "no_permission": predict_no_permission,
        "flip_scan": partial(predict_flip_input, where="in"),
        "flip_checkpoint": partial(predict_flip_input, where="some.ckpt"),
        "flip_record": partial(predict_flip_output, pattern=".segpipe/records/*/*.json"),
        "flip_output": partial(predict_flip_output, pattern="*.*"),
        "moved": predict_moved,
    }
    training = {
        "train_signal": train_signal,
        "train_flip_checkpoint": partial(train_flip, pattern="run/checkpoints/last.ckpt"),
        "train_flip_cache": partial(train_flip, pattern="cache/**/*"),
        "train_moved": train_moved,
        "sweep_signal": sweep_signal,
        "doctor_flip": doctor_flip,
    }
    wanted = [name for name in [*predicting, *training] if only is None or name in only]
    import segpipe.batch  # the commands are forks of this process

    scans = folder / "scans"
    run = folder / "training"
    if {*wanted} & {*predicting}:
        prepare_scans(scans)
    if {*wanted} & {*training}:
        import segpipe.doctor
        import segpipe.run  # noqa: F401

        prepare_run(run)
    chosen: dict[str, Attack] = {}
    for name in wanted:
        if name in predicting:
            chosen[name] = partial(predicting[name], scans)
        else:
            chosen[name] = partial(training[name], run)
    return chosen


def prepare_scans(folder: Path) -> None:
    """Write scans, a checkpoint, and their masks by an undisturbed call."""
    (folder / "in").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in NAMES:
        voxels = rng.integers(-100, 300, (28, 24, 16)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1, 2, 1])), folder / f"in/{name}.nii.gz")
    options = options_of(["model.channels=[4,8]", "plan.spacing=[1,1,2]", "plan.patch=[16,16,8]"])
    plan = plan_of_ct(options, 1.0)
    torch.manual_seed(0)
    network = build(options.model, 1, plan.outputs, plan.strides, plan.kernels)
    write_checkpoint(folder / "some.ckpt", options, plan, network)
    arena = Arena(folder, None)  # type: ignore[arg-type]  # nothing in it is random
    ended = arena.call("predict.py", *PREDICT)
    if ended.status:
        raise SystemExit(ended.said)


def prepare_run(folder: Path) -> None:
    """Train a small network without a disturbance."""
    folder.mkdir()
    arena = Arena(folder, None)  # type: ignore[arg-type]
    ended = arena.call("train.py", *TRAIN, "hydra.run.dir=run")
    if ended.status:
        raise SystemExit(ended.said)


def copied(source: Path, arena: Arena, *names: str) -> None:
    """Copy files and folders into the folder of an attack."""
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, arena.folder / name)
        else:
            shutil.copy2(source / name, arena.folder / name)


def check_masks(scans: Path, arena: Arena, but: Sequence[str] = ()) -> int:
    """Return the number of masks; each must be that of an undisturbed call.

    Raises:
        WrongError: if one differs.
    """
    masks = list((arena.folder / "out").glob("*.nii.gz"))
    for mask in masks:
        if mask.name not in but and mask.read_bytes() != (scans / "out" / mask.name).read_bytes():
            raise WrongError(f"the mask {mask.name} differs")
    return len(masks)


def judge(scans: Path, arena: Arena, ended: Ended, but: Sequence[str] = ()) -> str:
    """Return how a call ended; then complete its folder, which must become the undisturbed one.

    Args:
        scans: undisturbed.
        arena: whose input is that of the undisturbed call again.
        ended: of the call.
        but: masks that were damaged after they were written.

    Raises:
        WrongError: if a mask differs, or the folder cannot be completed.
    """
    masks = check_masks(scans, arena, but)
    if ended.status == 0 and masks < len(NAMES):
        raise WrongError("status 0 without all masks")
    again = arena.call("predict.py", *PREDICT, "retry_failed=true")
    if again.status:
        raise WrongError(f"cannot be completed: status {again.status}: {again.said[-300:]}")
    if check_masks(scans, arena) < len(NAMES):
        raise WrongError("masks are missing after a call with status 0")
    check_tables(scans, arena)
    if ended.status == 0:
        return "right"
    return "missing" if ended.status in ENDS.values() else "refused"


def check_tables(scans: Path, arena: Arena) -> None:
    """Check that manifest and table say of every scan what the undisturbed ones say, but times."""
    rows = []
    for folder in (arena.folder / "out", scans / "out"):
        stored = json.loads((folder / "manifest.json").read_text())["scans"]
        found = [(row["name"], row["voxels"], row["files"], row["reason"]) for row in stored]
        with (folder / "predictions.csv").open(newline="") as file:
            table = [(row["case"], row["status"]) for row in csv.DictReader(file)]
        rows.append((found, table))
    if rows[0] != rows[1]:
        raise WrongError("manifest or table differs")


def disturbed(arena: Arena, script: str, *words: str, longest_s: float) -> Ended:
    """Run a command and send it a signal at a random time, unless it has ended by then."""
    command = arena.start(script, *words)
    time.sleep(arena.rng.uniform(0, longest_s))
    number = arena.rng.choice(list(ENDS))
    with suppress(ProcessLookupError):  # it has ended, which `wait` finds
        os.kill(command.pid, number)
    ended = command.wait()
    if ended.status not in (0, ENDS[number], -number):  # the last: before it has a handler
        raise WrongError(f"status {ended.status} after signal {number}: {ended.said[-300:]}")
    return ended


def predict_signal(scans: Path, arena: Arena) -> str:
    """Send KILL, TERM or INT."""
    copied(scans, arena, "in", "some.ckpt")
    ended = disturbed(arena, "predict.py", *PREDICT, longest_s=_usual_s(scans))
    return judge(scans, arena, ended)


def _usual_s(scans: Path) -> float:
    """Return about how long the undisturbed call took."""
    end = (scans / "out/index.html").stat().st_mtime
    return 1.3 * (end - (scans / "some.ckpt").stat().st_mtime)


def predict_two(scans: Path, arena: Arena) -> str:
    """Let two calls fill one folder, with or without claims; kill one of them in half the cases."""
    copied(scans, arena, "in", "some.ckpt")
    claim = arena.rng.choice(["claim=true", "claim=false"])
    first = arena.start("predict.py", *PREDICT, claim)
    time.sleep(arena.rng.uniform(0, 1))
    second = arena.start("predict.py", *PREDICT, claim)
    if arena.rng.random() < 0.5:
        time.sleep(arena.rng.uniform(0, 3))
        os.kill(first.pid, signal.SIGKILL)
    killed = first.wait()
    ended = second.wait()
    if killed.status not in (0, -9) or ended.status:
        raise WrongError(f"statuses {killed.status}, {ended.status}: {killed.said}{ended.said}")
    check_tables(scans, arena)
    return judge(scans, arena, ended)


def predict_full(scans: Path, arena: Arena) -> str:
    """Let no file grow beyond a size, as on a disk that is full."""
    copied(scans, arena, "in", "some.ckpt")
    most = arena.rng.choice([100, 700, 2_000, 5_000, 9_000, 20_000])
    ended = arena.start("predict.py", *PREDICT, file_bytes=most).wait()
    return judge(scans, arena, ended)


def predict_no_permission(scans: Path, arena: Arena) -> str:
    """Take away the right to write: to the output, or to a folder or file in it."""
    copied(scans, arena, "in", "some.ckpt", "out")
    output = arena.folder / "out"
    for mask in arena.rng.sample(sorted(output.glob("*.nii.gz")), 3):
        mask.unlink()
    places = [output, *(path for path in output.rglob("*"))]
    chosen = arena.rng.choice(places)
    usual = chosen.stat().st_mode
    chosen.chmod(0o555 if chosen.is_dir() else 0o444)
    ended = arena.start("predict.py", *PREDICT, as_user=True).wait()
    chosen.chmod(usual)
    return judge(scans, arena, ended)


def predict_flip_input(scans: Path, arena: Arena, where: str) -> str:
    """Flip a bit of a scan or of the checkpoint before the call."""
    copied(scans, arena, "in", "some.ckpt")
    file = arena.folder / where
    if file.is_dir():
        file = arena.rng.choice(sorted(file.iterdir()))
    done = arena.flip(file)
    ended = arena.call("predict.py", *PREDICT)
    try:
        check_masks(scans, arena)
        shutil.copy2(scans / file.relative_to(arena.folder), file)
        return judge(scans, arena, ended)
    except WrongError as error:
        raise WrongError(f"{error} ({done})") from None


def predict_flip_output(scans: Path, arena: Arena, pattern: str) -> str:
    """Flip a bit of a record, or of a mask, manifest or table, between two calls."""
    copied(scans, arena, "in", "some.ckpt", "out")
    file = arena.rng.choice(sorted((arena.folder / "out").glob(pattern)))
    done = arena.flip(file)
    ended = arena.call("predict.py", *PREDICT)
    try:
        return judge(scans, arena, ended)
    except WrongError as error:
        raise WrongError(f"{error} ({done})") from None


def predict_moved(scans: Path, arena: Arena) -> str:
    """Interrupt a call, move everything, and go on."""
    copied(scans, arena, "in", "some.ckpt")
    disturbed(arena, "predict.py", *PREDICT, longest_s=_usual_s(scans))
    moved = arena.folder.with_name(arena.folder.name + "-moved")
    arena.folder.rename(moved)
    arena.folder = moved
    before = {path.name: path.stat().st_mtime_ns for path in (moved / "out").glob("*.nii.gz")}
    known = len(list((moved / "out/.segpipe/records").glob("*/*.json")))
    ended = arena.call("predict.py", *PREDICT)
    after = {path.name: path.stat().st_mtime_ns for path in (moved / "out").glob("*.nii.gz")}
    again = [name for name in before if before[name] != after.get(name)]
    if len(again) > len(before) - known:  # masks without a record may be
        raise WrongError(f"{len(again)} of {len(before)} masks were computed again")
    return judge(scans, arena, ended)


def check_run(run: Path, arena: Arena, name: str = "run") -> None:
    """Check that a run ended with the weights of the undisturbed one, bit for bit."""
    weights = []
    for folder in (run / "run", arena.folder / name):
        stored = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        weights.append(stored["state_dict"])
    for key, value in weights[0].items():
        if not torch.equal(value, weights[1][key]):
            raise WrongError(f"the weights {key} differ from those of an undisturbed run")


def go_on(run: Path, arena: Arena, ended: Ended) -> str:
    """Complete a run by the same call; it must become the undisturbed one."""
    again = arena.call("train.py", *TRAIN, "hydra.run.dir=run")
    if again.status:
        raise WrongError(f"cannot be completed: status {again.status}: {again.said[-300:]}")
    check_run(run, arena)
    return "right" if ended.status == 0 else "missing"


def train_signal(run: Path, arena: Arena) -> str:
    """Send KILL, TERM or INT to a training; the same call goes on."""
    copied(run, arena, "data", "cache")
    words = (*TRAIN, "hydra.run.dir=run")
    ended = disturbed(arena, "train.py", *words, longest_s=_training_s(run))
    return go_on(run, arena, ended)


def _training_s(run: Path) -> float:
    """Return about how long the undisturbed run took."""
    last = (run / "run/report.html").stat().st_mtime
    return 1.1 * max(1.0, last - (run / "run/config.yaml").stat().st_mtime)


def train_flip(run: Path, arena: Arena, pattern: str) -> str:
    """Stop a training, flip a bit of its checkpoint or of the cache, and go on."""
    copied(run, arena, "data", "cache")
    words = (*TRAIN, "hydra.run.dir=run")
    ended = disturbed(arena, "train.py", *words, longest_s=_training_s(run))
    files = [path for path in arena.folder.glob(pattern) if path.is_file() and path.stat().st_size]
    if not files:
        return go_on(run, arena, ended)
    file = arena.rng.choice(sorted(files))
    whole = file.read_bytes()
    done = arena.flip(file)
    again = arena.call("train.py", *words)
    try:
        if again.status == 0:
            check_run(run, arena)
            return "right"
        file.write_bytes(whole)
        go_on(run, arena, again)
    except WrongError as error:
        raise WrongError(f"{error} ({done})") from None
    return "refused"


def train_moved(run: Path, arena: Arena) -> str:
    """Stop a training, move everything, and go on."""
    copied(run, arena, "data", "cache")
    words = (*TRAIN, "hydra.run.dir=run")
    ended = disturbed(arena, "train.py", *words, longest_s=_training_s(run))
    moved = arena.folder.with_name(arena.folder.name + "-moved")
    arena.folder.rename(moved)
    arena.folder = moved
    return go_on(run, arena, ended)


def sweep_signal(run: Path, arena: Arena) -> str:
    """Send a signal to a sweep of two runs, and go on with it."""
    copied(run, arena, "data", "cache")
    words = (*TRAIN, "-m", "seed=0,1", "hydra.sweep.dir=sweep")
    ended = disturbed(arena, "train.py", *words, longest_s=2 * _training_s(run))
    again = arena.call("train.py", *words)
    if again.status:
        raise WrongError(f"cannot be completed: status {again.status}: {again.said[-300:]}")
    check_run(run, arena, "sweep/0")
    return "right" if ended.status == 0 else "missing"


def doctor_flip(run: Path, arena: Arena) -> str:
    """Flip a bit of a training case; the doctor finds it, or it changes nothing."""
    copied(run, arena, "data")
    files = sorted((arena.folder / "data").rglob("*.nii.gz"))
    file = arena.rng.choice([path for path in files if "Tr" in path.parent.name])
    whole = nib.load(file).get_fdata()
    done = arena.flip(file)
    ended = arena.call("train.py", *TRAIN, "mode=doctor", "hydra.run.dir=doctor")
    if ended.status == 0:
        if not np.array_equal(nib.load(file).get_fdata(), whole):
            raise WrongError(f"the doctor finds nothing ({done})")
        return "right"
    if ended.status not in (2, 3):
        raise WrongError(f"status {ended.status} ({done}): {ended.said[-300:]}")
    return "refused"
