"""How long each stage of a run takes, and the most memory that was in use until its end: `stages.json`."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch

from segpipe.files import write_text

FILE = "stages.json"
MIB = 2**20
PREPARING, TRAINING, VALIDATING = "preparing cases", "training", "validating"


@dataclass
class Phase:
    """A stage of a run, all of its parts together.

    Attributes:
        name: what is done in it.
        seconds: wall time, without that of stages inside it.
        memory_mib: the most that the process had in memory until its end; None where the system does not say.
        device_mib: the most that tensors took of the GPU's memory until its end; None without a GPU.
    """

    name: str
    seconds: float = 0.0
    memory_mib: float | None = None
    device_mib: float | None = None


class PhaseTimer(pl.Callback):
    """Takes the time of stages, of which one may lie inside another; a resumed run's add to those before.

    Args:
        folder: the run's folder, where `stages.json` is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self.known = {one.name: one for one in read_phases(folder)}
        self.open: list[str] = []
        self.since = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Takes the time of what is done inside, ended by an error or not."""
        depth = len(self.open)
        self.begin(name)
        try:
            yield
        finally:
            self._charge()
            del self.open[depth:]  # those inside that an error has left open too

    def begin(self, name: str) -> None:
        """From here on time belongs to this stage, until its end."""
        self._charge()
        self.open.append(name)

    def end(self) -> None:
        """Time belongs again to the stage around the one that ends here."""
        self._charge()
        self.open.pop()

    def save(self) -> None:
        """Writes what is known so far."""
        self._charge()
        write_text(
            self.file, json.dumps([asdict(one) for one in self.known.values()], indent=1) + "\n"
        )

    def _charge(self) -> None:
        now = time.perf_counter()
        if self.open:
            phase = self.known.setdefault(self.open[-1], Phase(self.open[-1]))
            phase.seconds += now - self.since
            phase.memory_mib, phase.device_mib = _process_mib(), _device_mib()
        self.since = now

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends what comes before the first step; training takes its place."""
        self._charge()
        self.open[-1] = TRAINING

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps the time of validations apart."""
        self.begin(VALIDATING)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Goes back to training."""
        self.end()


def read_phases(folder: Path) -> list[Phase]:
    """What is known of the stages of the run in this folder."""
    file = folder / FILE
    return [Phase(**row) for row in json.loads(file.read_text())] if file.is_file() else []


def _process_mib() -> float | None:
    if sys.platform == "win32":
        return None
    import resource  # which Windows does not have

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / MIB if sys.platform == "darwin" else most / 1024


def _device_mib() -> float | None:
    return torch.cuda.max_memory_allocated() / MIB if torch.cuda.is_available() else None
