"""The attacks of `torture.py` on training, sweeps and the doctor."""

from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torture_arena import Arena, Ended, WrongError

from segpipe.text import first_line

TRAIN = ("model.channels=[4,8]", "data.phantom.train=6", "data.phantom.test=1", "plan.batch=1",
         "plan.patch=[32,32,32]", "trainer.max_steps=12", "trainer.steps_per_epoch=3",
         "trainer.validations=4", "data.workers=0", "trainer.device=cpu",
         "data.cache=cache")  # fmt: skip


def prepare_run(folder: Path) -> None:
    """Train a small network without a disturbance."""
    folder.mkdir()
    arena = Arena(folder, None)  # type: ignore[arg-type]
    ended = arena.call("train.py", *TRAIN, "hydra.run.dir=run")
    if ended.status:
        raise SystemExit(ended.said)


def check_run(run: Path, arena: Arena, name: str = "run") -> None:
    """Check that a run ended with the weights of the undisturbed one, bit for bit."""
    weights = []
    for folder in (run / "run", arena.folder / name):
        file = folder / "checkpoints/last.ckpt"
        try:
            stored = torch.load(file, weights_only=True)
        except Exception as error:  # torch meets a damaged file with whatever it trips over
            raise WrongError(f"{file.name} is damaged: {first_line(error)}") from None
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
    arena.copy(run, "data", "cache")
    words = (*TRAIN, "hydra.run.dir=run")
    ended = arena.disturb("train.py", *words, longest_s=_training_s(run))
    return go_on(run, arena, ended)


def _training_s(run: Path) -> float:
    """Return about how long the undisturbed run took."""
    last = (run / "run/report.html").stat().st_mtime
    return 1.1 * max(1.0, last - (run / "run/config.yaml").stat().st_mtime)


def train_flip(run: Path, arena: Arena, pattern: str) -> str:
    """Stop a training, flip a bit of its checkpoint or of the cache, and go on."""
    arena.copy(run, "data", "cache")
    words = (*TRAIN, "hydra.run.dir=run")
    ended = arena.disturb("train.py", *words, longest_s=_training_s(run))
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
    arena.copy(run, "data", "cache")
    words = (*TRAIN, "hydra.run.dir=run")
    ended = arena.disturb("train.py", *words, longest_s=_training_s(run))
    arena.move()
    return go_on(run, arena, ended)


def sweep_signal(run: Path, arena: Arena) -> str:
    """Send a signal to a sweep of two runs, and go on with it."""
    arena.copy(run, "data", "cache")
    words = (*TRAIN, "-m", "seed=0,1", "hydra.sweep.dir=sweep")
    ended = arena.disturb("train.py", *words, longest_s=2 * _training_s(run))
    again = arena.call("train.py", *words)
    if again.status:
        raise WrongError(f"cannot be completed: status {again.status}: {again.said[-300:]}")
    check_run(run, arena, "sweep/0")
    return "right" if ended.status == 0 else "missing"


def doctor_flip(run: Path, arena: Arena) -> str:
    """Flip a bit of a training case; the doctor finds it, or it changes nothing."""
    arena.copy(run, "data")
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


TRAINING = {
    "train_signal": train_signal,
    "train_flip_checkpoint": partial(train_flip, pattern="run/checkpoints/last.ckpt"),
    "train_flip_cache": partial(train_flip, pattern="cache/**/*"),
    "train_moved": train_moved,
    "sweep_signal": sweep_signal,
    "doctor_flip": doctor_flip,
}
