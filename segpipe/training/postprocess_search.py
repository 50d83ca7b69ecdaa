"""The search for post-processing at the end of a training, along with the scoring of its cases."""

import copy
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segpipe.data.cases import Case
from segpipe.files import write_json
from segpipe.io.volumes import read_grid
from segpipe.postprocess import PostProcess
from segpipe.prediction.predictor import Predictor
from segpipe.text import count
from segpipe.training.calibration import calibrate
from segpipe.training.evidence import Evidence, gather
from segpipe.training.postprocess_choice import (
    FEWEST_CASES,
    Choice,
    choose_removals,
    choose_thresholds,
    mean_dice_with,
    store,
)
from segpipe.training.scoring import ScoredCase, score_cases
from segpipe.units import UNITS

log = logging.getLogger("segpipe")
FILE = "postprocess.json"
MOST_BYTES = 2**31  # of a case's probabilities, one byte each; no thresholds are tried above it


class PostProcessSearch:
    """Gathers what scored cases say of post-processing, and chooses from all of them.

    Args:
        predictor: the predictor of the network, or of the first of several; its copy `predictor`
            keeps probabilities too.
        cases: all validation cases; none where nothing is to be chosen.
        folder: the folder of the run, where the probabilities of one case at a time lie.
        parts: predictors and the cases that each is asked about; None: `predictor` and `cases`.

    Attributes:
        predictor: the predictor with which the cases are to be scored.
    """

    def __init__(
        self,
        predictor: Predictor,
        cases: Sequence[Case],
        folder: Path,
        parts: Sequence[tuple[Predictor, Sequence[Case]]] | None = None,
    ) -> None:
        self.cases = cases
        self.folder = folder
        self.parts = [(predictor, cases)] if parts is None else parts
        self.evidence: list[Evidence] = []
        self.seconds = 0.0
        self.note = ""
        self.predictor = copy.copy(predictor)
        largest = 0
        for case in cases:
            voxels = math.prod(read_grid(case.images[0]).shape)
            largest = max(largest, voxels * predictor.plan.outputs)
        if len(cases) < FEWEST_CASES:
            few = count(len(cases), "validation case")
            self.note = f"{few}, where at least {FEWEST_CASES} are needed"
        elif largest > MOST_BYTES:
            self.note = "no thresholds were tried: the probabilities of a case are too many"
            self.predictor = self._keeping(predictor, ("mask", "sample"))
        else:
            self.predictor = self._keeping(predictor, ("mask", "sample", "probabilities"))

    def add(self, scored: ScoredCase) -> None:
        """Gather what one case says."""
        if len(self.cases) < FEWEST_CASES:
            return
        start = time.perf_counter()
        self.evidence.append(_evidence(scored, self.predictor))
        self.seconds += time.perf_counter() - start

    def add_all(self) -> None:
        """Segment all cases, each by the predictor of its part, and gather what they say."""
        for predictor, cases in self.parts:
            predictor = self._keeping(predictor, self.predictor.save)
            for scored in score_cases(predictor, cases):
                self.add(scored)

    def _keeping(self, predictor: Predictor, save: Sequence[str]) -> Predictor:
        other = copy.copy(predictor)
        other.save = save
        other.folder = self.folder
        return other

    def finish(self) -> Choice:
        """Choose, store the choice in the best checkpoint, and write `postprocess.json`.

        Raises:
            SegpipeError: if a case cannot be read again, or a file not be written.
        """
        choice = self.choose()
        store(self.folder / "checkpoints" / "best.ckpt", choice.chosen)
        return choice

    def choose(self) -> Choice:
        """Choose from what was gathered, and write `postprocess.json`.

        Raises:
            SegpipeError: if a case cannot be read again, or the file not be written.
        """
        choice = self._choose()
        line = choice.line(UNITS[self.predictor.plan.unit])
        write_json(self.folder / FILE, {**choice.to_values(), "line": line})
        level = logging.INFO if choice.trials else logging.DEBUG
        log.log(level, "post-processing: %s", line)
        return choice

    def _choose(self) -> Choice:
        if not self.evidence:
            return Choice(PostProcess(), [], len(self.cases), None, None, note=self.note)
        start = time.perf_counter()
        plan = self.predictor.plan
        before = mean_dice_with(self.evidence, plan, PostProcess())
        thresholds, trials = choose_thresholds(self.evidence)
        evidence = self.evidence
        if thresholds:
            changed = self._evidence_with(thresholds)
            if mean_dice_with(changed, plan, PostProcess()) > before:
                evidence = changed
            else:
                thresholds = {}
                trials = [replace(trial, taken=False) for trial in trials]
        removals, removal_trials = choose_removals(evidence, plan)
        after = mean_dice_with(evidence, plan, removals)
        chosen = removals.model_copy(update={"thresholds": thresholds})
        voxels = [case.voxels for case in self.evidence if case.voxels is not None]
        calibration = calibrate(voxels, plan.regions is None)
        if calibration is not None:
            chosen = chosen.model_copy(update={"temperature": calibration.temperature})
        seconds = self.seconds + time.perf_counter() - start
        tried = [*trials, *removal_trials]
        number = len(self.cases)
        return Choice(chosen, tried, number, before, after, seconds, self.note, calibration)

    def _evidence_with(self, thresholds: dict[str, float]) -> list[Evidence]:
        """Return what the cases say when they are segmented again under these thresholds.

        The thresholds were chosen one label at a time, and the voxels of one are lost to another.
        """
        found = []
        for predictor, cases in self.parts:
            changed = predictor.with_postprocess(PostProcess(thresholds=thresholds))
            for scored in score_cases(changed, cases):
                found.append(_evidence(scored, changed))
        return found


def _evidence(scored: ScoredCase, predictor: Predictor) -> Evidence:
    name = scored.case.name
    return gather(name, scored.prediction, scored.truth, scored.scores, predictor.plan)
