"""How long one waits: for help, for a config error, and for the first training step of the phantom.

    python benchmarks/startup.py

Each time is the median of several calls in turns, and a ratio to `python -c pass` in the same turns. The first step is
that of `train.py` as it is, on a phantom that is there already (its cases prepared or not).
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
TURNS = 5
FIRST_STEP = "first step after"  # said at verbose=true
CALLS = {
    "python -c pass": ["-c", "pass"],
    "import segpipe": ["-c", "import segpipe"],
    "train.py --help": [str(ROOT / "train.py"), "--help"],
    "train.py --help model.long_skips": [str(ROOT / "train.py"), "--help", "model.long_skips"],
    "train.py model.long_skip=none (an error)": [str(ROOT / "train.py"), "model.long_skip=none"],
    "predict.py --help": [str(ROOT / "predict.py"), "--help"],
    "torch, MONAI and Lightning imported": [
        "-c",
        "import torch, monai.transforms, pytorch_lightning",
    ],
}


def main() -> None:
    """Measures and prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as work:
        seconds: dict[str, list[float]] = {name: [] for name in CALLS}
        for _ in range(TURNS):
            for name, call in CALLS.items():
                start = time.perf_counter()
                subprocess.run(
                    [sys.executable, *call],
                    cwd=work,
                    env=environment,
                    capture_output=True,
                    check=False,
                )
                seconds[name].append(time.perf_counter() - start)
        plain = median(seconds["python -c pass"])
        for name, taken in seconds.items():
            print(f"{name:45s} {median(taken):6.2f} s  {median(taken) / plain:7.1f} x", flush=True)
        for name in ("phantom not there yet", "phantom there", "its cases prepared"):
            taken = until_first_step(Path(work), environment)
            print(f"{'first step, ' + name:45s} {taken:6.2f} s  {taken / plain:7.1f} x", flush=True)
            if name == "phantom not there yet":
                subprocess.run(["rm", "-r", f"{work}/data/cache"], check=True)


def until_first_step(work: Path, environment: dict[str, str]) -> float:
    """Seconds from the command to the end of its first step."""
    start = time.perf_counter()
    call = [sys.executable, str(ROOT / "train.py"), "verbose=true"]
    with subprocess.Popen(
        call, cwd=work, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if FIRST_STEP in line:
                taken = time.perf_counter() - start
                process.terminate()
                for _ in process.stdout:
                    pass
                return taken
    raise RuntimeError(f"train.py ended with status {process.returncode} before its first step")


if __name__ == "__main__":
    main()
