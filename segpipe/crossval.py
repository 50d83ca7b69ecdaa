"""`python train.py mode=crossval`: all folds, one after the other, and an ensemble of them."""

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from segpipe import checkpoint
from segpipe.config.quoting import invocation, prediction_with, typed
from segpipe.config.train import Train
from segpipe.data.cases import Case
from segpipe.data.datasets import open_for_training, select_cases, split_dataset
from segpipe.device import choose_device, choose_format
from segpipe.ensembles import write_ensemble
from segpipe.lock import alone_in
from segpipe.metrics import Score, write_scores
from segpipe.plan import Plan
from segpipe.postprocess import PostProcess
from segpipe.prediction.predictor import Predictor
from segpipe.ranks import ALONE, Ranks
from segpipe.reporting.crossval_page import write_crossval
from segpipe.reporting.rendering import show_scores, show_verdict
from segpipe.reporting.run_record import RunRecord
from segpipe.resume import is_done, resumable
from segpipe.run import fit
from segpipe.terminal import relative_to_cwd, show_next
from segpipe.text import count
from segpipe.training.postprocess_search import PostProcessSearch
from segpipe.units import UNITS
from segpipe.verdict import judge

log = logging.getLogger("segpipe")
PAGE = "crossval.html"


def cross_validate(
    options: Train, folder: Path, overrides: Sequence[str], ranks: Ranks = ALONE
) -> None:
    """Train the folds that are missing, pool their scores, choose post-processing, make a page.

    The same command in the same folder (`hydra.run.dir`) goes on where it stopped.

    Args:
        options: the options of each run; `data.fold` is set here.
        folder: in which each fold has its run, `fold_0`, `fold_1` ...
        overrides: arguments of the command line, for the record.
        ranks: the processes of a launcher, of which this is the first.

    Raises:
        SegpipeError: if the options or a case cannot be used.
    """
    names = [f"fold_{fold}" for fold in range(options.data.folds)]
    for fold in range(len(names)):
        _cases_of(options, fold)  # raises before the first fold trains
    try:
        for fold, name in enumerate(names):
            log.info("fold %d of %d", fold + 1, len(names))
            _train_fold(options, fold, folder / name, overrides, ranks)
    except BaseException:
        where = typed("hydra.run.dir", relative_to_cwd(folder))
        words = shlex.join([word for word in overrides if not word.startswith("hydra.run.dir=")])
        log.warning("go on with all folds: %s %s %s", invocation("train"), words, where)
        raise
    scores: list[Score] = []
    for name in names:
        scores += RunRecord(folder / name).scores
    write_scores(scores, folder / "validation.csv")
    postprocess, line, plan = _choose(options, folder, names)
    write_ensemble(folder, names, postprocess)
    write_crossval(folder / PAGE, names, line)
    show_scores(scores, count(len(scores) // len(plan.targets), "case"), UNITS[plan.unit])
    where = relative_to_cwd(folder)
    show_next([("report", where / PAGE), ("predict", prediction_with(where))])
    verdict = judge(scores, "training")
    if verdict is not None:
        show_verdict(verdict)


def _of_fold(options: Train, fold: int) -> Train:
    data = options.data.model_copy(update={"fold": fold})
    trainer = options.trainer.model_copy(update={"masks": True})
    return options.model_copy(update={"data": data, "trainer": trainer, "mode": "train"})


def _cases_of(options: Train, fold: int) -> list[Case]:
    """Return the cases that validate in a fold.

    Raises:
        SegpipeError: if there is no such fold, or the dataset cannot be found.
    """
    opened, dataset = open_for_training(_of_fold(options, fold))
    _, val = select_cases(dataset, split_dataset(dataset, opened.data))
    return val


def _train_fold(
    options: Train, fold: int, folder: Path, overrides: Sequence[str], ranks: Ranks
) -> None:
    """Train a fold, or go on with it, unless it is done.

    Raises:
        ConfigError: if its folder holds a run of other overrides.
    """
    words = [word for word in overrides if not word.startswith("mode=")]
    words.append(f"data.fold={fold}")
    resume = resumable(folder, words)
    if is_done(folder):
        log.info("%s is done already", folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        of_fold = _of_fold(options, fold).model_copy(update={"resume": resume})
        fit(of_fold, folder, words, ranks)


def _choose(options: Train, folder: Path, names: Sequence[str]) -> tuple[PostProcess, str, Plan]:
    """Return the post-processing of all out-of-fold cases, a line on it, and the plan."""
    device = choose_device(options.trainer.device)
    number_format = choose_format(options.trainer.precision, device)
    parts: list[tuple[Predictor, Sequence[Case]]] = []
    cases: list[Case] = []
    for fold, name in enumerate(names):
        trained = checkpoint.load(folder / name)
        val = _cases_of(options, fold)
        parts.append((Predictor.of(trained, device, number_format), val))
        cases += val
    plan = parts[0][0].plan
    if not options.trainer.postprocess:
        return PostProcess(), "", plan
    search = PostProcessSearch(parts[0][0], cases, folder, parts)
    search.add_all()
    choice = search.choose()
    return choice.chosen, choice.line(UNITS[plan.unit]), plan
