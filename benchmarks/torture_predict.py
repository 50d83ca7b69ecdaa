"""The attacks of `torture.py` on prediction."""

import csv
import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from step import options_of
from synthetic import plan_of_ct, write_checkpoint
from torture_arena import ENDS, Arena, Ended, WrongError

from segpipe.nets.build import build

NAMES = [f"case_{number}" for number in range(6)]
PREDICT = ("checkpoint=some.ckpt", "input=in", "output=out", "device=cpu", "overlays=false")


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


def masks_of(arena: Arena) -> list[Path]:
    """Return the masks; what a killed call has left unfinished is none, and has a hidden name."""
    return list((arena.folder / "out").glob("[!.]*.nii.gz"))


def check_masks(scans: Path, arena: Arena, but: Sequence[str] = ()) -> int:
    """Return the number of masks; each must be that of an undisturbed call.

    Raises:
        WrongError: if one differs.
    """
    masks = masks_of(arena)
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


def predict_signal(scans: Path, arena: Arena) -> str:
    """Send KILL, TERM or INT."""
    arena.copy(scans, "in", "some.ckpt")
    ended = arena.disturb("predict.py", *PREDICT, longest_s=_usual_s(scans))
    return judge(scans, arena, ended)


def _usual_s(scans: Path) -> float:
    """Return about how long the undisturbed call took."""
    end = (scans / "out/index.html").stat().st_mtime
    return 1.3 * (end - (scans / "some.ckpt").stat().st_mtime)


def predict_two(scans: Path, arena: Arena) -> str:
    """Let two calls fill one folder, with or without claims; kill one of them in half the cases."""
    arena.copy(scans, "in", "some.ckpt")
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
    arena.copy(scans, "in", "some.ckpt")
    most = arena.rng.choice([0, 100, 500, 1_500, 4_000, 6_000, 9_000, 20_000])
    ended = arena.start("predict.py", *PREDICT, file_bytes=most).wait()
    return judge(scans, arena, ended)


def predict_no_permission(scans: Path, arena: Arena) -> str:
    """Take away the right to write: to the output, or to a folder or file in it."""
    arena.copy(scans, "in", "some.ckpt", "out")
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
    arena.copy(scans, "in", "some.ckpt")
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
    arena.copy(scans, "in", "some.ckpt", "out")
    files = filter(Path.is_file, (arena.folder / "out").glob(pattern))
    file = arena.rng.choice(sorted(files))
    done = arena.flip(file)
    ended = arena.call("predict.py", *PREDICT)
    try:
        return judge(scans, arena, ended)
    except WrongError as error:
        raise WrongError(f"{error} ({done})") from None


def predict_moved(scans: Path, arena: Arena) -> str:
    """Interrupt a call, move everything, and go on."""
    arena.copy(scans, "in", "some.ckpt")
    arena.disturb("predict.py", *PREDICT, longest_s=_usual_s(scans))
    arena.move()
    before = {path.name: path.stat().st_mtime_ns for path in masks_of(arena)}
    known = len(list((arena.folder / "out/.segpipe/records").glob("*/*.json")))
    ended = arena.call("predict.py", *PREDICT)
    after = {path.name: path.stat().st_mtime_ns for path in masks_of(arena)}
    again = [name for name in before if before[name] != after.get(name)]
    if len(again) > len(before) - known:  # masks without a record may be
        raise WrongError(f"{len(again)} of {len(before)} masks were computed again")
    return judge(scans, arena, ended)


PREDICTING = {
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
