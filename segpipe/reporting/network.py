"""A network's stages as a table in the terminal."""

import json
import logging
from pathlib import Path

from segpipe.plan import Plan
from segpipe.reporting.drawing import short
from segpipe.terminal import show_table
from segpipe.text import times

log = logging.getLogger("segpipe")
COLUMNS = [
    "stage", "channels", "size", "short", "long", "params", "mult-adds", "sees voxels", "sees mm", "MiB",
]  # fmt: skip


def show_network(file: Path, plan: Plan) -> None:
    """Print a network's stages: size, skips, parameters, multiply-adds, receptive field, memory.

    Args:
        file: `network.json` of a run.
        plan: of the run.
    """
    spacing_mm = [plan.spacing_mm[axis] for axis in plan.network_axes]
    facts = json.loads(file.read_text())
    rows = [_row(stage, spacing_mm) for stage in facts["stages"]]
    total = ["all", "", "", "", ""]
    total += [short(facts["parameters"]), short(facts["multiply_adds"]), "", ""]
    total += [f"{facts['saved_mib']:.1f}"]
    show_table("for one patch", COLUMNS, [*rows, total])
    log.info("drawn in %s", file.with_suffix(".png"))


def _row(stage: dict, spacing_mm: list[float | None]) -> list[str]:
    field = stage["receptive_field"]
    voxels, mm = "?", "?"
    if field:
        voxels = times(field)
        if None not in spacing_mm:
            mm = times(f"{size * edge:.0f}" for size, edge in zip(field, spacing_mm, strict=True))
    return [
        stage["name"],
        str(stage["channels"]),
        times(stage["size"]),
        stage["short_skip"],
        stage["long_skip"],
        short(stage["parameters"]),
        short(stage["multiply_adds"]),
        voxels,
        mm,
        f"{stage['saved_mib']:.1f}",
    ]
