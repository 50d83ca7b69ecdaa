"""The files of a run's folder, read again; a file that the run has not come to is empty."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from segpipe.config.train import Loss
from segpipe.errors import DataError, SegpipeError
from segpipe.files import read_table
from segpipe.metrics import Score
from segpipe.stored import read_config, read_plan, read_record, read_yaml
from segpipe.text import first_line
from segpipe.training.callbacks.history import CASES, CaseDice
from segpipe.training.callbacks.phases import Phase, read_phases
from segpipe.training.initial_record import FILE as INITIAL
from segpipe.training.initial_record import Record
from segpipe.units import UNITS, Units

FACTS = "fingerprint.json"


@dataclass(frozen=True)
class Sides:
    """The content of `split.json`.

    Attributes:
        train: names of the cases that train.
        val: likewise of those that validate.
    """

    train: list[str]
    val: list[str]


@dataclass(frozen=True)
class RunRecord:
    """The files of a run.

    Attributes:
        folder: the folder of the run, with at least its config, plan, split and environment.
    """

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return the options of the run."""
        file = self.folder / "config.yaml"
        return read_config(file, read_yaml(file))

    @cached_property
    def plan(self) -> dict[str, Any]:
        """Return the plan that was derived from the cases."""
        file = self.folder / "plan.yaml"
        return read_plan(file, read_yaml(file)).model_dump(mode="json")

    @property
    def units(self) -> Units:
        """Return the units in which lengths and volumes are shown."""
        return UNITS[self.plan.get("unit", "mm")]

    @property
    def labels(self) -> list[str]:
        """Return the names of the labels without the background."""
        return list(self.plan["labels"])[1:]

    @property
    def loss_name(self) -> str:
        """Return the names of the loss terms, such as `dice + cross entropy`; else `loss`."""
        weights = self.config.get("loss") or {}
        terms = []
        for name, weight in weights.items():
            if weight and name not in Loss.model_fields:  # the others are options of the terms
                terms.append(name.replace("_", " "))
        return " + ".join(terms) or "loss"

    @cached_property
    def split(self) -> dict[str, list[str]]:
        """Return the names of the cases that train and validate."""
        split = self.json("split.json", Sides)
        return {"train": split.train, "val": split.val}

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Return the command, the versions and the machine."""
        return self.json("environment.json")

    @cached_property
    def network(self) -> dict[str, Any] | None:
        """Return the description of the network; None where there is none yet."""
        return self.json("network.json")

    @cached_property
    def postprocess(self) -> dict[str, Any]:
        """Return what was tried and chosen as post-processing; empty where nothing was."""
        return self.json("postprocess.json") or {}

    @cached_property
    def initial(self) -> Record | None:
        """Return what became of the weights that the run started from; None where it had none."""
        return self.json(INITIAL, Record)

    @cached_property
    def quality(self) -> dict[str, Any]:
        """Return the model of the quality of masks; empty where nothing was learnt."""
        return self.json("quality.json") or {}

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """Return a row per epoch of training, without what was not measured."""
        rows: list[dict[str, float]] = []
        with as_written(self.folder / "metrics.csv"):
            for cells in self.rows("metrics.csv"):
                rows.append({name: float(cell) for name, cell in cells.items() if cell})
        return rows

    @cached_property
    def scores(self) -> list[Score]:
        """Return the scores of each case and target by the best checkpoint."""
        with as_written(self.folder / "validation.csv"):
            return list(map(Score.from_values, self.rows("validation.csv")))

    @cached_property
    def last(self) -> list[CaseDice]:
        """Return the Dice of each case and target in the last validation during training."""
        rows: list[CaseDice] = []
        with as_written(self.folder / CASES):
            for cells in self.rows(CASES):
                dice = float(cells["dice"])
                rows.append(CaseDice(int(cells["step"]), cells["case"], cells["label"], dice))
        return rows

    @cached_property
    def stages(self) -> list[Phase]:
        """Return time and memory of each stage of the run."""
        return read_phases(self.folder)

    @property
    def seconds_per_step(self) -> float:
        """Return the median wall time of a training step, s; NaN where it was not measured."""
        cost = self.json("cost.json") or {}
        with as_written(self.folder / "cost.json"):
            return float(cost.get("seconds_per_step", "nan"))

    def json(self, name: str, kind: Any = dict[str, Any]) -> Any:
        """Return the checked content of a JSON file; None where there is no such file.

        Raises:
            ConfigError: if it is damaged, or a newer segpipe has written it.
        """
        file = self.folder / name
        return read_record(file, kind) if file.is_file() else None

    def rows(self, name: str) -> list[dict[str, str]]:
        """Return the rows of a CSV file; none where there is no such file.

        Raises:
            DataError: if it is damaged.
        """
        file = self.folder / name
        return read_table(file) if file.is_file() else []


@contextmanager
def as_written(file: Path) -> Iterator[None]:
    """Refuse a file whose values the block cannot use.

    Raises:
        DataError: naming it.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, SegpipeError):
            raise
        raise DataError(f"{file}: is not what a run writes ({first_line(error)})") from None


def plain(value: Any) -> Any:
    """Return values as JSON knows them: NaN and infinity, which it does not, become null."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return list(map(plain, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value
