"""What a run has left in its folder, read again; what it has not come to is empty."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from segpipe.metrics import Score
from segpipe.stored import read_yaml
from segpipe.training.callbacks.history import CASES, CaseDice
from segpipe.training.callbacks.phases import Phase, read_phases

Row = TypeVar("Row", Score, CaseDice)


@dataclass(frozen=True)
class Record:
    """The files of a run.

    Attributes:
        folder: the run's folder, with at least config, plan, split and environment.
    """

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The run's options."""
        return read_yaml(self.folder / "config.yaml")

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What was derived from the cases."""
        return read_yaml(self.folder / "plan.yaml")

    @property
    def labels(self) -> list[str]:
        """Names of the labels but the background."""
        return list(self.plan["labels"])[1:]

    @cached_property
    def split(self) -> dict[str, list[str]]:
        """Names of the cases that train and validate."""
        split = self.json("split.json")
        return {side: split[side] for side in ("train", "val")}

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Command, versions and machine."""
        return self.json("environment.json")

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """A row per epoch."""
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in self.rows("metrics.csv")
        ]

    @cached_property
    def scores(self) -> list[Score]:
        """By the best checkpoint, of each case and target."""
        return _typed(self.rows("validation.csv"), Score)

    @cached_property
    def last(self) -> list[CaseDice]:
        """Of the last validation during training."""
        return _typed(self.rows(CASES), CaseDice)

    @cached_property
    def stages(self) -> list[Phase]:
        """Time and memory."""
        return read_phases(self.folder)

    def json(self, name: str) -> Any:
        """The content of a JSON file; None where it is not there."""
        file = self.folder / name
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of a CSV; none where it is not there."""
        file = self.folder / name
        if not file.is_file():
            return []
        with file.open(newline="", encoding="utf-8") as opened:
            return list(csv.DictReader(opened))


def _typed(rows: Sequence[dict[str, str]], kind: type[Row]) -> list[Row]:
    found: list[Row] = []
    for row in rows:
        values: dict[str, Any] = {}
        for field in fields(kind):
            convert: Any = field.type
            values[field.name] = convert(row[field.name])
        found.append(kind(**values))
    return found


def plain(value: Any) -> Any:
    """Values as JSON knows them: NaN and infinity, which it does not, become null."""
    if isinstance(value, dict):
        return {str(key): plain(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
