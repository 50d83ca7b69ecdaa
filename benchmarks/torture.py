"""Attack prediction and training at random, and judge that no result is ever wrong.

    python benchmarks/torture.py --minutes 60
    python benchmarks/torture.py --minutes 15 --seed 7 --only flip_record

Each attack works on a fresh copy of a few small scans, a checkpoint and, where it needs them, masks or a run. It ends
in one of four ways: `right` (the results are those of an undisturbed call, byte for byte), `refused` (a message and a
status that is not 0), `missing` (ended by a signal, with less than all results), and `wrong`: a result that differs, a
traceback, a status that does not say what happened, or a folder that an undisturbed call cannot complete afterwards.
The folder of whatever is wrong is kept. The exit status is 1 where anything was wrong.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: its threads would not survive a fork
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torture_arena import Arena, Attack, WrongError
from torture_predict import PREDICTING, prepare_scans
from torture_train import TRAINING, prepare_run

OUTCOMES = ("right", "refused", "missing", "wrong")


def main() -> None:
    """Attack until the time is over, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", nargs="+", help="names of attacks")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="torture-") as temporary:
        os.chmod(temporary, 0o755)
        chosen = attacks(Path(temporary), asked.only)
        left = Path(tempfile.mkdtemp(prefix="torture-wrong-"))
        found, kept = torture(Path(temporary), left, chosen, asked.minutes, random.Random(seed))
    if kept:
        print(f"kept in {left}")
    else:
        left.rmdir()
    print_table(chosen, found)
    sys.exit(bool(kept))


def attacks(folder: Path, only: Sequence[str] | None) -> dict[str, Attack]:
    """Return the attacks by name; what they begin with is made once.

    Args:
        folder: for the undisturbed scans, masks and run.
        only: names of those that are wanted; None: all.
    """
    import segpipe.batch  # the commands are forks of this process
    import segpipe.doctor
    import segpipe.run  # noqa: F401

    chosen: dict[str, Attack] = {}
    for kind, prepare, known in (
        ("prediction", prepare_scans, PREDICTING),
        ("training", prepare_run, TRAINING),
    ):
        wanted = [name for name in known if only is None or name in only]
        if wanted:
            prepare(folder / kind)
        for name in wanted:
            chosen[name] = partial(known[name], folder / kind)
    return chosen


def torture(
    folder: Path, left: Path, chosen: dict[str, Attack], minutes: float, rng: random.Random
) -> tuple[Counter[tuple[str, str]], list[Path]]:
    """Attack in turn until the time is over.

    Args:
        folder: in which the attacks take place.
        left: for the folders of what is wrong.
        chosen: the attacks.
        minutes: after which no other begins.
        rng: of all that is random.

    Returns:
        How often each ended in which way, and the folders of what is wrong.
    """
    found: Counter[tuple[str, str]] = Counter()
    kept: list[Path] = []
    deadline = time.monotonic() + 60 * minutes
    number = 0
    while time.monotonic() < deadline:
        for name, attack in chosen.items():
            number += 1
            arena = Arena(folder / f"attack-{number}-{name}", rng)
            arena.folder.mkdir()
            try:
                outcome = attack(arena)
                shutil.rmtree(arena.folder)
            except WrongError as error:
                outcome = "wrong"
                kept.append(arena.folder.rename(left / arena.folder.name))
                print(f"WRONG: attack {number}, {name}: {error}", flush=True)
            found[name, outcome] += 1
            if time.monotonic() > deadline:
                break
    return found, kept


def print_table(names: Iterable[str], found: Counter[tuple[str, str]]) -> None:
    """Print how often each attack ended in each way."""
    print(f"{'attack':24s}" + "".join(f"{outcome:>9s}" for outcome in OUTCOMES))
    for name in names:
        print(f"{name:24s}" + "".join(f"{found[name, outcome]:9d}" for outcome in OUTCOMES))
    totals: Counter[str] = Counter()
    for (_, outcome), count in found.items():
        totals[outcome] += count
    print(f"{'all':24s}" + "".join(f"{totals[outcome]:9d}" for outcome in OUTCOMES))


if __name__ == "__main__":
    main()
