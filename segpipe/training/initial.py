"""Trained weights that a run starts from: `init=RUN`."""

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import nn

from segpipe import checkpoint
from segpipe.checkpoint import StartedFrom, Trained
from segpipe.config.initial import InitOptions
from segpipe.config.model import AnyModel, Model
from segpipe.config.train import Train
from segpipe.ensembles import read_ensemble
from segpipe.errors import ConfigError
from segpipe.files import digest, write_json
from segpipe.metric_record import mean_of_known
from segpipe.nets.transfer import Ends, Sources, find_ends, transfer
from segpipe.plan import Plan
from segpipe.planning.case_record import FILE as SPLIT
from segpipe.planning.inherited import Origin, match_channels
from segpipe.stored import SCHEMA, read_config, read_record, read_yaml
from segpipe.terminal import show_table
from segpipe.training.initial_model import check_plan_keys, model_of, with_own
from segpipe.training.initial_record import FILE, Record, channel_note, output_note, state_rows

log = logging.getLogger("segpipe")
COLUMNS = ("weights", "number", "of")
ENCODER = ("stem.", "downs.")  # beginnings of the names of a U-Net's weights


@dataclass(frozen=True)
class Cases:
    """What is read of a `split.json`.

    Attributes:
        train: names of the cases that train.
        val: names of the cases that validate.
        contents: case name -> digest; empty in a run of version 0.1.0.
    """

    train: list[str]
    val: list[str]
    contents: dict[str, str] = field(default_factory=dict)


def open_initial(
    options: Train, folder: Path, overrides: Sequence[str]
) -> tuple[Train, "Initial | None"]:
    """Return the weights that a run starts from, with the options that have their network.

    Args:
        options: the run's options.
        folder: the run's folder.
        overrides: arguments of the command line.

    Raises:
        ConfigError: if the weights cannot be used, or a given option is not that of their network.
    """
    if options.init.checkpoint is None:
        return options, None
    initial = Initial(options, folder)
    return initial.adapt(options, overrides), initial


class Initial:
    """The weights that a run starts from, or has started from where it is resumed.

    Args:
        options: the run's options.
        folder: the run's folder.

    Raises:
        ConfigError: if there is no checkpoint, or it cannot be started from.
    """

    def __init__(self, options: Train, folder: Path) -> None:
        assert options.init.checkpoint is not None
        self.options = options.init
        self.folder = folder
        self.record: Record | None = None
        self.trained: Trained | None = None
        if options.resume is not None:
            self.record = read_record(folder / FILE, Record)
            file = folder / "config.yaml"
            self.model = model_of(read_config(file, read_yaml(file)))
        else:
            file = find_member(options.init.checkpoint)
            self.trained = checkpoint.load(file)
            self.model = model_of(self.trained.config)
            data = self.trained.data and self.trained.data.name
            content = digest([file])
            seen = sorted(self.trained.seen)
            self.source = StartedFrom(str(file), content, self.trained.step, data, seen)
            log.info("starts from %s, step %d", file, self.trained.step)
        if self.options.freeze != "none" and not isinstance(self.model, Model):
            raise ConfigError(
                f"init.freeze={self.options.freeze} is for network=unet: of "
                f"{self.model.network} no part is known as the encoder"
            )

    def adapt(self, options: Train, overrides: Sequence[str]) -> Train:
        """Return the run's options with the checkpoint's network.

        Args:
            options: the run's own.
            overrides: arguments of the command line.

        Raises:
            ConfigError: if a given option is not that of the network.
        """
        model = self.model
        if options.resume is None:
            model = with_own(model, options.model, overrides, str(options.init.checkpoint))
            check_plan_keys(overrides)
        return options.model_copy(update={"model": model})

    @property
    def origin(self) -> Origin | None:
        """The plan that the run goes on from; None for a resumed run, which has its own."""
        if self.trained is None:
            return None
        model = self.model
        network = f"network {model.network}, {model.dims}D"
        if isinstance(model, Model):
            network += f", channels {', '.join(map(str, model.widths))}"
        source = str(self.options.checkpoint)
        return Origin(source, self.trained.plan, network, self.options.channels or {})

    def load(self, network: nn.Module, model: AnyModel, plan: Plan) -> Record:
        """Put the weights into the run's network, freeze and record; or freeze again.

        Args:
            network: the network of the run, initialised.
            model: its options.
            plan: the plan of the run.

        Raises:
            ConfigError: if no weight fits.
            DataError: if the record cannot be written.
        """
        if self.record is None:
            self.record = self._transfer(network, model, plan)
            write_json(self.folder / FILE, {"schema": SCHEMA, **asdict(self.record)})
            rows = [[what, f"{number:,}", which] for what, number, which in self.record.rows]
            show_table(f"from {self.source.path}", list(COLUMNS), rows)
            _warn_of_seen_cases(Path(self.source.path), self.folder)
        freeze(network, self.record, self.options)
        self.trained = None
        return self.record

    def _transfer(self, network: nn.Module, model: AnyModel, plan: Plan) -> Record:
        origin = self.origin
        assert origin is not None
        assert self.trained is not None
        old = origin.plan
        channels = match_channels(plan.channels, origin)
        outputs = match_outputs(plan, old)
        shape = (len(plan.channels), plan.outputs, plan.strides, plan.kernels)
        weights = self.trained.network.state_dict()
        match = Ends(channels, outputs, len(old.channels), old.outputs)
        states = transfer(network, weights, find_ends(model, shape), match)
        if not {"loaded", "adapted"} & {*states.values()}:
            raise ConfigError(f"{self.source.path}: no weight of it fits the network")
        sizes = {name: weight.numel() for name, weight in (weights | network.state_dict()).items()}
        rows = state_rows(states, sizes)
        rows.append(("channels", len(channels), channel_note(channels, plan, old)))
        rows.append(("labels", len(outputs), output_note(outputs, plan)))
        return Record(self.source, states, rows)


def find_member(path: Path) -> Path:
    """Return the checkpoint file to start from: of a cross-validation its best fold's.

    Raises:
        ConfigError: if there is none, or `path` is the folder of a sweep.
    """
    if (path / "multirun.yaml").is_file():
        raise ConfigError(f"init={path} is a sweep: name one of its runs, as init={path}/0")
    ensemble = read_ensemble(path)
    if ensemble is None:
        return checkpoint.find(path)
    best = path
    highest = -math.inf
    for name in ensemble.members:
        mean = mean_of_known(checkpoint.load(path / name).dice.values(), none=0.0)
        if mean > highest:
            highest = mean
            best = path / name
    log.info(
        "init: of %d folds %s has the highest Dice, %.4f", len(ensemble.members), best, highest
    )
    return checkpoint.find(best)


def match_outputs(plan: Plan, old: Plan) -> Sources:
    """Return for each label or region of a plan that of the same name in another.

    The background goes on from the background. Labels are not taken for regions.
    """
    if (plan.regions is None) != (old.regions is None):
        return [None] * plan.outputs
    before = [*(old.regions or old.labels)]
    sources: list[int | None] = []
    for name in plan.regions or plan.labels:
        sources.append(before.index(name) if name in before else None)
    if plan.regions is None:
        sources[0] = 0
    return sources


def _warn_of_seen_cases(file: Path, folder: Path) -> None:
    """Log which cases that validate a run have trained the weights that it starts from.

    Args:
        file: the checkpoint; a copy outside its run's folder does not say what it has seen.
        folder: the folder of the run.

    Raises:
        ConfigError: if a `split.json` is damaged.
    """
    beside = file.parent.parent / SPLIT
    if not beside.is_file():
        return
    before = read_record(beside, Cases)
    now = read_record(folder / SPLIT, Cases)
    trained = {before.contents.get(name, "") for name in before.train}
    seen = [name for name in now.val if now.contents.get(name) in trained]
    if seen:
        log.warning(
            "init: %d of %d cases that validate have trained the weights of %s, as %s: their "
            "scores are too good",
            len(seen),
            len(now.val),
            file,
            seen[0],
        )


def freeze(network: nn.Module, record: Record, options: InitOptions) -> None:
    """Take what was loaded of the encoder out of the training, where the options say so.

    Batch norms still measure the data.
    """
    if options.freeze == "none":
        return
    for name, weight in network.named_parameters():
        if name.startswith(ENCODER) and record.states.get(name) == "loaded":
            weight.requires_grad_(False)
