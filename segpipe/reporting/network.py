"""A network's stages as a table in the terminal."""

import json
import logging
from pathlib import Path

from segpipe.plan import Plan
from segpipe.reporting.drawing import short
from segpipe.terminal import show_table
from segpipe.text import times
from segpipe.units import UNITS

log = logging.getLogger("segpipe")
COLUMNS = [
    "stage",
    "channels",
    "size",
    "short",
    "long",
    "params",
    "mult-adds",
    "sees voxels",
    "sees mm",
    "MiB",
]


def show_network(file: Path, plan: Plan) -> None:
    """Print a network's stages: size, skips, parameters, multiply-adds, receptive field, memory.

    Args:
        file: `network.json` of a run.
        plan: the run's plan.
    """
    spacing_mm = [plan.spacing_mm[axis] for axis in plan.network_axes]
    facts = json.loads(file.read_text(encoding="utf-8"))
    rows = []
    for stage in facts["stages"]:
        rows.append(_row(stage, spacing_mm))
    total = ["all", "", "", "", ""]
    total += [short(facts["parameters"]), short(facts["multiply_adds"]), "", ""]
    total += [f"{facts['saved_mib']:.1f}"]
    columns = list(map(UNITS[plan.unit].in_text, COLUMNS))
    show_table("for one patch", columns, [*rows, total])
    log.info("drawn in %s", file.with_suffix(".png"))


def _row(stage: dict, spacing_mm: list[float | None]) -> list[str]:
    field = stage["receptive_field"]
    return [
        stage["name"],
        str(stage["channels"]),
        times(stage["size"]),
        stage["short_skip"],
        stage["long_skip"],
        short(stage["parameters"]),
        short(stage["multiply_adds"]),
        times(field) if field else "?",
        _in_mm(field, spacing_mm) if field else "?",
        f"{stage['saved_mib']:.1f}",
    ]


def _in_mm(field: list[int], spacing_mm: list[float | None]) -> str:
    """Return a receptive field in mm; `?` where the network keeps each scan's own spacing."""
    edges = []
    for voxels, edge_mm in zip(field, spacing_mm, strict=True):
        if edge_mm is None:
            return "?"
        edges.append(f"{voxels * edge_mm:.0f}")
    return times(edges)
