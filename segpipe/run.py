"""One training from options to a scored network and its report; the story of `python train.py`."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytorch_lightning as pl

from segpipe import checkpoint
from segpipe.accelerator import place, tune_process
from segpipe.checkpoint import TrainedOn
from segpipe.config.train import Train
from segpipe.data.inspected_case import InspectedCase
from segpipe.device import NumberFormat, choose_device, choose_format, count_devices
from segpipe.metrics import Score, check_scoring, write_scores
from segpipe.nets.build import check as check_network
from segpipe.plan import Plan
from segpipe.planning.capacity import planned_model
from segpipe.planning.devices import for_devices
from segpipe.planning.fingerprint import content_of, facts
from segpipe.planning.planner import log_plan, plan_dataset
from segpipe.planning.run_cases import RunCases
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.outputs import write_outputs
from segpipe.prediction.predictor import Predictor
from segpipe.ranks import ALONE, Ranks, named
from segpipe.reporting.drawing import draw_network
from segpipe.reporting.gradient_flow import draw_gradient_flow
from segpipe.reporting.network import show_network
from segpipe.reporting.plots import draw_curves
from segpipe.reporting.rendering import add_to_viewer, draw_prediction, show_scores
from segpipe.reporting.run_page import write_facts, write_interrupted, write_report
from segpipe.reporting.run_summary import show_run
from segpipe.reporting.viewer import ViewerBudget
from segpipe.stored import read_plan, read_yaml
from segpipe.text import count
from segpipe.training.beside import together
from segpipe.training.callbacks.phases import PREPARING, TRAINING, PhaseTimer
from segpipe.training.initial import open_initial
from segpipe.training.job import Job, lead
from segpipe.training.last import check_last
from segpipe.training.loggers import check as check_logger
from segpipe.training.network import make_network
from segpipe.training.postprocess_search import PostProcessSearch
from segpipe.training.provenance import write_record
from segpipe.training.quality_learning import store_quality
from segpipe.training.scoring import ScoredCase, score_cases, worst_and_best
from segpipe.units import UNITS

log = logging.getLogger("segpipe")


def fit(options: Train, folder: Path, overrides: Sequence[str], ranks: Ranks = ALONE) -> None:
    """Train one network and score its best checkpoint on the validation cases.

    Args:
        options: the run's options.
        folder: the run's folder, which is filled.
        overrides: arguments of the command line, for the record.
        ranks: the processes of a launcher, of which this is the first; where there is none,
            processes for the other devices are started here.

    Raises:
        SegpipeError: if the options or a case cannot be used.
    """
    run = Run(options, folder, overrides, ranks)
    run.prepare()
    if options.mode == "describe":
        show_network(folder / "network.json", run.plan)
        return
    with run.reported_if_it_ends_early():
        run.train()
        run.score()
    run.report()


class Run:
    """One training: owns its options, device, dataset, plan, network and folder.

    Args:
        options: the run's options.
        folder: the run's folder.
        overrides: arguments of the command line.
        ranks: the processes of a launcher, of which this is the first.

    Raises:
        ConfigError: if the device, the network or the logger cannot be used here, a resumed run
            has no whole checkpoint, or the weights to start from cannot be used.
    """

    def __init__(
        self, options: Train, folder: Path, overrides: Sequence[str], ranks: Ranks = ALONE
    ) -> None:
        self.options = options
        self.folder = folder
        self.overrides = overrides
        if options.resume is not None:
            check_last(folder)
        self.ranks = ranks
        self.device = choose_device(options.trainer.device)
        self.devices = ranks.size  # that train together
        if ranks is ALONE:
            self.devices = count_devices(options.trainer.device, options.trainer.devices)
        tune_process(self.device)
        self.number_format: NumberFormat = choose_format(options.trainer.precision, self.device)
        self.options, self.initial = open_initial(options, folder, overrides)
        check_network(self.options.model)
        check_logger(options.logger)
        self.phases = PhaseTimer(folder)
        self.viewer: ViewerBudget | None = None

    def prepare(self) -> None:
        """Find, split and inspect the cases; plan; build the network; record what the run is.

        Raises:
            SegpipeError: if a case cannot be used, or given entries do not go together.
        """
        pl.seed_everything(self.options.seed, verbose=False)
        self.cases = RunCases(self.options, self.folder)
        self.options = self.cases.options
        with self.phases.phase("reading cases"):
            train, val = self.cases.inspect()
        with self.phases.phase("planning"):
            self.plan = self._make_plan(train, val)
            check_scoring(self.options, self.plan.targets)
            per_device = Ranks(size=self.devices).patches(self.plan)
            self._log_plan()
            if self.devices > 1:
                log.info("  %d patches a step on each of %d devices", per_device, self.devices)
            self._make_network()
        if self.options.mode == "describe":
            return
        content = content_of([*train, *val])
        images = sorted({case.content for case in [*train, *val]})
        self.trained_on = TrainedOn(self.cases.dataset.name, content, len(train), len(val), images)
        write_record(self.folder, self.options, self.plan, self.overrides, self.device)
        write_facts(self.folder, facts(train, val, self.plan.labels, self.plan.channels))

    def train(self) -> None:
        """Train to the end of the budget, or go on from the last checkpoint of a resumed run.

        Raises:
            Stopped: at Ctrl-C or SIGTERM.
        """
        log.info("training on %s in %s", named(self.device, self.devices), self.number_format)
        place(self.network, self.device)
        job = Job(
            self.folder,
            self.options,
            self.plan,
            self.number_format,
            self.trained_on,
            self.cases.train,
            self.cases.val,
            initial=self.initial and self.initial.record,
        )
        with self.phases.phase(PREPARING), self._together() as ranks:
            lead(job, self.network, self.device, ranks, self.phases)

    def score(self) -> None:
        """Score the best checkpoint on whole scans: `validation.csv`, `overlays/` and a table.

        Raises:
            SegpipeError: if the run has no checkpoint, or a case cannot be read.
        """
        with self.phases.phase("scoring and drawing"):
            trained = checkpoint.load(self.folder)
            predictor = Predictor.of(trained, self.device, self.number_format)
            searched = self.cases.val if self.options.trainer.postprocess else []
            search = PostProcessSearch(predictor, searched, self.folder)
            scores = self._score_cases(search)
            write_scores(scores, self.folder / "validation.csv")
            draw_curves(self.folder / "metrics.csv", self.folder / "curves.png")
            draw_gradient_flow(self.folder)
            if not self._draws_all:  # the worst and best cases are known only now
                shown = worst_and_best(self.cases.val, scores, self.options.page.cases)
                for scored in score_cases(predictor, shown):
                    self._draw(scored)
            title = count(len(self.cases.val), "validation case")
            show_scores(scores, title, UNITS[self.plan.unit])
        if self.options.trainer.postprocess:
            with self.phases.phase("choosing post-processing"):
                search.finish()
        if self.options.trainer.quality:
            with self.phases.phase("fitting the quality estimator"):
                seconds = self.phases.seconds_of(TRAINING)
                store_quality(self.folder, predictor, self.cases.val, self.options.seed, seconds)

    def report(self) -> None:
        """Write the run's page; print where to look, what to type next, and the verdict.

        Raises:
            DataError: if the page cannot be written.
        """
        self.phases.save()
        write_report(self.folder, viewer=self.viewer)
        show_run(self.folder)

    @contextmanager
    def reported_if_it_ends_early(self) -> Iterator[None]:
        """Write the page with what there is where the block is ended by an error or a signal."""
        try:
            yield
        except BaseException as error:
            write_interrupted(self.folder, self.phases, error)
            raise

    def _make_plan(self, train: list[InspectedCase], val: list[InspectedCase]) -> Plan:
        """Return the plan for these cases on this device; a resumed run keeps its plan.

        Raises:
            SegpipeError: if given entries do not go together, or the stored plan cannot be read.
        """
        if self.options.resume is not None:
            file = self.folder / "plan.yaml"
            return read_plan(file, read_yaml(file))
        origin = self.initial and self.initial.origin
        plan = plan_dataset(
            self.cases.dataset, train, val, self.options, self.device, self.number_format, origin
        )
        return for_devices(plan, self.devices, self.options.plan.batch)

    def _log_plan(self) -> None:
        """Log the number of cases, the labels, and every entry of the plan with its reason."""
        log.info(
            "%s: %s, %s; labels %s",
            self.cases.dataset.name,
            count(len(self.cases.train), "training case"),
            count(len(self.cases.val), "validation case"),
            ", ".join(self.plan.label_names),
        )
        log_plan(self.plan)

    def _make_network(self) -> None:
        """Build, match and draw the network; the options then hold the channels that it has."""
        model = planned_model(self.options.model, self.plan)
        network = make_network(model, self.plan, self.options.seed)
        if self.initial is not None:
            self.initial.load(network.module, network.model, self.plan)
        self.network = network.module
        self.options = self.options.model_copy(update={"model": network.model})
        network.write(self.folder / "network.json")
        title = f"{self.options.model.network}: {network.title}"
        draw_network(network.stages, title, self.folder / "network.png")

    def _together(self) -> AbstractContextManager[Ranks]:
        """Return the processes that train, as a context in which they all run."""
        if self.ranks.size == self.devices:
            return nullcontext(self.ranks)
        return together(self.devices, self.device)

    @property
    def _draws_all(self) -> bool:
        """Whether every validation case gets an overlay."""
        return len(self.cases.val) <= self.options.page.cases

    def _score_cases(self, search: PostProcessSearch) -> list[Score]:
        """Return the scores of all validation cases; draw them and fill the viewer on the way."""
        page = self.options.page
        if page.viewer:
            self.viewer = ViewerBudget(page.viewer_mib)
        scores: list[Score] = []
        for scored in score_cases(search.predictor, self.cases.val, self.options):
            scores += scored.scores
            search.add(scored)
            if self.options.trainer.masks:
                scan = Scan(scored.case.name, scored.case.images)
                write_outputs(scored.prediction, scan, self.plan, ["mask"], self.folder / "masks")
            if self._draws_all:
                self._draw(scored)
            if self.viewer is not None:
                name = scored.case.name
                add_to_viewer(self.viewer, name, scored.prediction, scored.truth, scored.dice)
        return scores

    def _draw(self, scored: ScoredCase) -> None:
        """Draw the overlay of a case."""
        picture = self.folder / "overlays" / f"{scored.case.name}.png"
        names = self.plan.label_names
        draw_prediction(scored.prediction, scored.truth, names, "", picture, self.plan.unit)
