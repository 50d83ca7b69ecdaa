"""Duration of each phase of a run, and the peak of memory by its end: `stages.json`."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch

from segpipe.files import write_json
from segpipe.stored import read_record

FILE = "stages.json"
MIB = 2**20
PREPARING = "preparing cases"
TRAINING = "training"
VALIDATING = "validating"


@dataclass
class Phase:
    """A phase of a run, all of its parts together.

    Attributes:
        name: what is done in it.
        seconds: wall time, without that of phases inside it.
        memory_mib: peak memory of the process by its end, in MiB; None where the system does not
            say.
        device_mib: peak memory of tensors on the GPU by its end, in MiB; None without a GPU.
    """

    name: str
    seconds: float = 0.0
    memory_mib: float | None = None
    device_mib: float | None = None


class PhaseTimer(pl.Callback):
    """A stopwatch of phases, which may lie inside one another; a resumed run's add to those before.

    Args:
        folder: the run's folder, where `stages.json` is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self.phases = {phase.name: phase for phase in read_phases(folder)}
        self.running: list[str] = []  # names of the phases that have begun, the innermost last
        self.charged_until = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what is done inside, whether or not an error ends it."""
        depth = len(self.running)
        self.begin(name)
        try:
            yield
        finally:
            self._charge()
            del self.running[depth:]  # those inside that an error has left running too

    def begin(self, name: str) -> None:
        """Let time belong to this phase until its end."""
        self._charge()
        self.running.append(name)

    def end(self) -> None:
        """Let time belong again to the phase around the innermost one."""
        self._charge()
        self.running.pop()

    def seconds_of(self, name: str) -> float:
        """Return the time of a phase so far, s; 0 where it has not begun."""
        return self.phases[name].seconds if name in self.phases else 0.0

    def save(self) -> None:
        """Write what is measured so far."""
        self._charge()
        write_json(self.file, [asdict(phase) for phase in self.phases.values()])

    def _charge(self) -> None:
        """Add the time since the last call to the innermost phase."""
        now = time.perf_counter()
        if self.running:
            name = self.running[-1]
            phase = self.phases.setdefault(name, Phase(name))
            phase.seconds += now - self.charged_until
            phase.memory_mib = _process_mib()
            phase.device_mib = _device_mib()
        self.charged_until = now

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let training take the place of what comes before the first step."""
        self._charge()
        self.running[-1] = TRAINING

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a validation inside the training."""
        self.begin(VALIDATING)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go back to training."""
        self.end()


def read_phases(folder: Path) -> list[Phase]:
    """Return the phases of the run in this folder; none where it has no `stages.json`."""
    file = folder / FILE
    if not file.is_file():
        return []
    return read_record(file, list[Phase])


def _process_mib() -> float | None:
    if sys.platform == "win32":
        return None
    import resource  # which Windows does not have

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def _device_mib() -> float | None:
    return torch.cuda.max_memory_allocated() / MIB if torch.cuda.is_available() else None
