"""The whole scans that validate a run: read once, and scored while the next one is computed."""

from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Integer

from segpipe.data.cases import Case
from segpipe.data.prepare import PreparedScan, prepare_volume, read_labels
from segpipe.io.objects import as_volume
from segpipe.metrics import dice_per_target
from segpipe.plan import Plan
from segpipe.prediction.predictor import Predictor
from segpipe.prediction.prefetch import one_core

MIB = 2**20
KEPT_MIB = 1024.0  # of prepared scans and truths; those beyond are read at every validation


@dataclass
class ValidationScans:
    """Scans with their truth, of which the first ones stay in memory.

    Attributes:
        plan: the plan of the run.
        most_mib: what is kept at most.
    """

    plan: Plan
    most_mib: float = KEPT_MIB
    kept: dict[str, tuple[PreparedScan, Integer[np.ndarray, "x y z"]]] = field(default_factory=dict)
    kept_mib: float = 0.0

    def get(self, case: Case) -> tuple[PreparedScan, Integer[np.ndarray, "x y z"]]:
        """Return a scan as the network sees it, and its label indices on its own grid.

        Raises:
            DataError: if one of its files cannot be used.
        """
        if case.name in self.kept:
            return self.kept[case.name]
        volume = as_volume(case.images, self.plan.nan)
        scan = prepare_volume(volume, self.plan, case.images[0])
        truth = read_labels(case, self.plan, scan.grid).numpy()[0]
        native = scan.native.as_tensor()
        body = 0 if scan.body is None else scan.body.nbytes
        held = scan.image.nbytes + native.nbytes + body + truth.nbytes
        size_mib = held / MIB
        if self.kept_mib + size_mib <= self.most_mib:
            self.kept[case.name] = (scan, truth)
            self.kept_mib += size_mib
        return scan, truth


class Validation:
    """One validation: its cases, and their Dice as it becomes known.

    Args:
        predictor: the predictor of the network.
        scans: the scans of the run.
    """

    def __init__(self, predictor: Predictor, scans: ValidationScans) -> None:
        self.predictor = predictor
        self.scans = scans
        self.names: list[str] = []
        self.scored: list[Future[np.ndarray]] = []
        self.pool = one_core()

    def measure(self, case: Case) -> None:
        """Segment a whole scan, and have its Dice per target measured beside.

        Raises:
            DataError: if one of its files cannot be used.
        """
        scan, truth = self.scans.get(case)
        labels = self.predictor.cleaned(self.predictor.segment(scan)).labels
        targets = self.predictor.plan.targets
        self.names.append(case.name)
        self.scored.append(self.pool.submit(dice_per_target, labels, truth, targets))

    def finish(self) -> list[np.ndarray]:
        """Return the Dice of each case, a row with a column per target."""
        rows = [future.result() for future in self.scored]
        self.pool.shutdown()
        return rows
