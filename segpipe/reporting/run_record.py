"""The files of a run's folder, read again; a file that the run has not come to is empty."""

import csv
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from segpipe.metrics import Score
from segpipe.stored import check_schema, read_yaml
from segpipe.training.callbacks.history import CASES, CaseDice
from segpipe.training.callbacks.phases import Phase, read_phases
from segpipe.units import UNITS, Units


@dataclass(frozen=True)
class RunRecord:
    """The files of a run.

    Attributes:
        folder: of the run, with at least its config, plan, split and environment.
    """

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return the options of the run."""
        return read_yaml(self.folder / "config.yaml")

    @cached_property
    def plan(self) -> dict[str, Any]:
        """Return the plan that was derived from the cases."""
        return read_yaml(self.folder / "plan.yaml")

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
        terms = [name.replace("_", " ") for name, weight in weights.items() if weight]
        return " + ".join(terms) or "loss"

    @cached_property
    def split(self) -> dict[str, list[str]]:
        """Return the names of the cases that train and validate."""
        split = self.json("split.json")
        return {part: split[part] for part in ("train", "val")}

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Return the command, the versions and the machine."""
        return self.json("environment.json")

    @cached_property
    def network(self) -> dict[str, Any] | None:
        """Return the description of the network; None where there is none yet."""
        return self.json("network.json")

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """Return a row per epoch of training, without what was not measured."""
        rows: list[dict[str, float]] = []
        for cells in self.rows("metrics.csv"):
            rows.append({name: float(cell) for name, cell in cells.items() if cell})
        return rows

    @cached_property
    def scores(self) -> list[Score]:
        """Return the scores of each case and target by the best checkpoint."""
        return list(map(Score.from_values, self.rows("validation.csv")))

    @cached_property
    def last(self) -> list[CaseDice]:
        """Return the Dice of each case and target in the last validation during training."""
        rows: list[CaseDice] = []
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
        cost = self.json("cost.json")
        return float("nan") if cost is None else cost["seconds_per_step"]

    def json(self, name: str) -> Any:
        """Return the content of a JSON file; None where there is no such file.

        Raises:
            ConfigError: if a newer segpipe has written it.
        """
        file = self.folder / name
        if not file.is_file():
            return None
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            check_schema(file, content)
        return content

    def rows(self, name: str) -> list[dict[str, str]]:
        """Return the rows of a CSV file; none where there is no such file."""
        file = self.folder / name
        if not file.is_file():
            return []
        with file.open(newline="", encoding="utf-8") as opened:
            return list(csv.DictReader(opened))


def plain(value: Any) -> Any:
    """Return values as JSON knows them: NaN and infinity, which it does not, become null."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return list(map(plain, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value
