"""One training from options to a scored network and its report; the story of `python train.py`."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
import yaml

from segpipe import checkpoint
from segpipe.checkpoint import TrainedOn
from segpipe.config.train import Train
from segpipe.data.datasets import open_dataset, select_cases, split_dataset
from segpipe.data.doctor import inspect_dataset, refuse_errors
from segpipe.data.module import CaseData
from segpipe.data.split import write_split
from segpipe.device import NumberFormat, choose_device, choose_format, hold_memory
from segpipe.files import write_text
from segpipe.metrics import Score, write_scores
from segpipe.nets.build import check as check_network
from segpipe.planning.fingerprint import content_of, facts
from segpipe.planning.planner import log_plan, plan_dataset
from segpipe.prediction.predictor import Predictor
from segpipe.reporting.drawing import draw_network
from segpipe.reporting.gradient_flow import draw_gradient_flow
from segpipe.reporting.network import show_network
from segpipe.reporting.plots import draw_curves
from segpipe.reporting.rendering import add_to_viewer, draw_prediction, show_scores
from segpipe.reporting.run_page import write_facts, write_interrupted, write_report
from segpipe.reporting.viewer import ViewerBudget
from segpipe.stored import SCHEMA
from segpipe.terminal import relative_to_cwd, show_next
from segpipe.text import count
from segpipe.training.callbacks.phases import PREPARING, PhaseTimer
from segpipe.training.loggers import check as check_logger
from segpipe.training.loggers import open_logger
from segpipe.training.network import make_network
from segpipe.training.provenance import environment
from segpipe.training.schedule import Budget
from segpipe.training.scoring import ScoredCase, score_cases, worst_and_best
from segpipe.training.task import SegmentationTask
from segpipe.training.trainer import make_trainer

log = logging.getLogger("segpipe")


def fit(options: Train, folder: Path, overrides: Sequence[str]) -> None:
    """Train one network and score its best checkpoint on the validation cases.

    Args:
        options: the run's options.
        folder: the run's folder, which is filled.
        overrides: what was typed, for the record.

    Raises:
        SegpipeError: if the options or a case cannot be used.
    """
    run = Run(options, folder, overrides)
    run.prepare()
    if options.mode == "describe":
        show_network(folder / "network.json", run.plan)
        return
    with run.reported_if_it_ends_early():
        run.train()
        run.score()
    run.report()


class Run:
    """One training: owns its device, dataset, split, plan, network and folder.

    Args:
        options: the run's options.
        folder: the run's folder.
        overrides: what was typed.

    Raises:
        ConfigError: if the device, the network or the logger cannot be used here.
    """

    def __init__(self, options: Train, folder: Path, overrides: Sequence[str]) -> None:
        self.options = options
        self.folder = folder
        self.overrides = overrides
        self.device = choose_device(options.trainer.device)
        self.number_format: NumberFormat = choose_format(options.trainer.precision, self.device)
        self.phases = PhaseTimer(folder)
        self.viewer: ViewerBudget | None = None
        hold_memory(self.device)
        check_network(options.model)
        check_logger(options.logger)

    def prepare(self) -> None:
        """Find, split and inspect the cases; plan; build the network; write down what the run is.

        Raises:
            SegpipeError: if a case cannot be used, or nothing fits together.
        """
        pl.seed_everything(self.options.seed, verbose=False)
        data = self.options.data
        self.dataset = open_dataset(data)
        split = split_dataset(self.dataset, data)
        write_split(split, self.folder / "split.json")
        self.train_cases, self.val_cases = select_cases(self.dataset, split)
        with self.phases.phase("reading cases"):
            inspected = inspect_dataset(
                self.dataset, self.train_cases, self.val_cases, data, self.folder
            )
        refuse_errors(inspected)
        train = inspected[: len(self.train_cases)]
        val = inspected[len(self.train_cases) :]
        with self.phases.phase("planning"):
            self.plan = plan_dataset(
                self.dataset, train, val, self.options, self.device, self.number_format
            )
            self._log_plan()
            self._make_network()
        if self.options.mode == "describe":
            return
        self.trained_on = TrainedOn(self.dataset.name, content_of(inspected), len(train), len(val))
        self._record()
        write_facts(self.folder, facts(train, val, self.plan.labels, self.plan.channels))

    def train(self) -> None:
        """Train to the end of the budget, or go on from the last checkpoint of a resumed run."""
        log.info("training on %s in %s", self.device, self.number_format)
        budget = Budget.of(self.options.trainer)
        task = SegmentationTask(
            self.network, self.plan, self.options, budget, self.number_format, self.trained_on
        )
        cases = CaseData(self.train_cases, self.val_cases, self.plan, self.options, self.device)
        last = self.folder / "checkpoints" / "last.ckpt" if self.options.resume else None
        with (
            _without_lightnings_own_warning(),
            self.phases.phase(PREPARING),
            open_logger(self.options, self.folder) as logger,
        ):
            trainer = make_trainer(
                self.options,
                budget,
                self.folder,
                self.device,
                self.number_format,
                self.phases,
                logger,
            )
            trainer.fit(task, cases, ckpt_path=last, weights_only=True)

    def score(self) -> None:
        """Score the best checkpoint on whole scans: `validation.csv`, `overlays/` and a table.

        Raises:
            SegpipeError: if the run has no checkpoint, or a case cannot be read.
        """
        with self.phases.phase("scoring and drawing"):
            page = self.options.page
            predictor = Predictor.of(checkpoint.load(self.folder), self.device, self.number_format)
            self.viewer = ViewerBudget(page.viewer_mib) if page.viewer else None
            draws_all = len(self.val_cases) <= page.cases
            scores: list[Score] = []
            for scored in score_cases(predictor, self.val_cases):
                scores += scored.scores
                if draws_all:
                    self._draw(scored)
                if self.viewer is not None:
                    prediction, truth = scored.prediction, scored.truth
                    add_to_viewer(self.viewer, scored.case.name, prediction, truth, scored.dice)
            write_scores(scores, self.folder / "validation.csv")
            draw_curves(self.folder / "metrics.csv", self.folder / "curves.png")
            if not draws_all:  # which cases are worst and best is known only now
                shown = worst_and_best(self.val_cases, scores, page.cases)
                for scored in score_cases(predictor, shown):
                    self._draw(scored)
            draw_gradient_flow(self.folder)
            show_scores(scores, count(len(self.val_cases), "validation case"))

    def report(self) -> None:
        """Write the run's page, and print where to look and what to type next.

        Raises:
            DataError: if the page cannot be written.
        """
        self.phases.save()
        write_report(self.folder, viewer=self.viewer)
        folder = relative_to_cwd(self.folder)
        show_next(
            [
                ("report", folder / "report.html"),
                ("network", folder / "checkpoints" / "best.ckpt"),
                (
                    "predict",
                    f"python predict.py checkpoint={folder} input=SCANS output=MASKS",
                ),
            ]
        )

    @contextmanager
    def reported_if_it_ends_early(self) -> Iterator[None]:
        """Write the page with what there is where the block is ended by an error or a signal."""
        try:
            yield
        except BaseException as error:
            write_interrupted(self.folder, self.phases, error)
            raise

    def _log_plan(self) -> None:
        log.info(
            "%s: %d cases train, %d validate; labels %s",
            self.dataset.name,
            len(self.train_cases),
            len(self.val_cases),
            ", ".join(self.plan.label_names),
        )
        log_plan(self.plan)

    def _make_network(self) -> None:
        network = make_network(self.options.model, self.plan, self.options.seed)
        self.network = network.module
        self.options = self.options.model_copy(update={"model": network.model})
        network.write(self.folder / "network.json")
        title = f"{self.options.model.network}: {network.title}"
        draw_network(network.stages, title, self.folder / "network.png")

    def _record(self) -> None:
        """Write down config, plan and environment, and let `runs/latest` point here."""
        config = {"schema": SCHEMA, **self.options.model_dump(mode="json")}
        plan = {"schema": SCHEMA, **self.plan.model_dump(mode="json")}
        write_text(self.folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
        write_text(self.folder / "plan.yaml", yaml.safe_dump(plan, sort_keys=False))
        write_text(self.folder / "environment.json", environment(self.overrides))
        _link_latest(self.folder.absolute())

    def _draw(self, scored: ScoredCase) -> None:
        name = scored.case.name
        picture = self.folder / "overlays" / f"{name}.png"
        draw_prediction(scored.prediction, scored.truth, self.plan.label_names, name, picture)


def _link_latest(folder: Path) -> None:
    """Let `latest` in the folder of all runs be a link to this one."""
    runs = next((parent for parent in folder.parents if parent.name == "runs"), folder.parent)
    latest = runs / "latest"
    if latest.is_dir() and not latest.is_symlink():
        log.warning(
            "%s is a folder, as in a copy of runs/, and no link: it is left as it is", latest
        )
        return
    link = runs / f".latest-{os.getpid()}"
    link.symlink_to(os.path.relpath(folder, runs))
    os.replace(link, latest)


@contextmanager
def _without_lightnings_own_warning() -> Iterator[None]:
    """Hide a warning that Lightning gives of its own call into torch, and nothing else."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # leaves out its banner
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
        yield
