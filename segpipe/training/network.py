"""The network of a run: matched where that is asked for, described, drawn, and built."""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import nn

from segpipe.config.model import Model
from segpipe.config.train import Train
from segpipe.drawing import draw_network, short
from segpipe.files import write_text
from segpipe.nets import build, draw_weights
from segpipe.nets.describe import Stage, describe
from segpipe.nets.match import Match, match
from segpipe.plan import Plan
from segpipe.terminal import show_table

log = logging.getLogger("segpipe")


def make_network(options: Train, plan: Plan, folder: Path) -> tuple[Train, nn.Module]:
    """The network, and the options with the channels that it has; leaves `network.json` and `network.png` behind.

    Args:
        options: the run's options.
        plan: what the network sees.
        folder: the run's folder.

    Raises:
        ConfigError: if it cannot be built, or not be matched.
    """
    patch = [voxels for axis, voxels in enumerate(plan.patch) if axis != plan.slice_axis]
    shape = len(plan.channels), plan.outputs, plan.strides, plan.kernels
    matched = None
    if isinstance(options.model, Model) and options.model.match != "none":
        matched = match(options.model, *shape, patch)
        options = options.model_copy(update={"model": matched.model})
        log.info(
            "matched %s: channels %s, %s of %s (%+.2f %%)",
            matched.what,
            ", ".join(map(str, matched.model.channels)),
            f"{matched.reached:,}",
            f"{matched.reference:,}",
            100 * matched.deviation,
        )
    network = build(options.model, *shape)
    if isinstance(options.model, Model):  # MONAI's networks have ways of their own to begin
        draw_weights(network, options.seed)
    stages = describe(options.model, *shape, patch)
    parameters = sum(weight.numel() for weight in network.parameters())
    title = f"{parameters:,} parameters, {sum(stage.multiply_adds for stage in stages):,} multiply-adds a patch"
    log.info("network: %s", title)
    _write(stages, matched, parameters, folder / "network.json")
    draw_network(stages, f"{options.model.network}: {title}", folder / "network.png")
    return options, network


def _write(stages: Sequence[Stage], matched: Match | None, parameters: int, file: Path) -> None:
    facts = {
        "parameters": parameters,
        "multiply_adds": sum(stage.multiply_adds for stage in stages),
        "saved_mib": sum(stage.saved_mib for stage in stages),
        "match": matched and {"what": matched.what, "reference": matched.reference, "reached": matched.reached},
        "stages": [asdict(stage) for stage in stages],
    }
    write_text(file, json.dumps(facts, indent=1) + "\n")


def show_network(file: Path, plan: Plan) -> None:
    """Prints a network's stages: size, skips, parameters, multiply-adds, receptive field in voxels and mm, memory.

    Args:
        file: `network.json` of a run.
        plan: of the run.
    """
    spacing = [mm for axis, mm in enumerate(plan.spacing_mm) if axis != plan.slice_axis]
    facts = json.loads(file.read_text())
    rows = []
    for stage in facts["stages"]:
        field = stage["receptive_field"]
        known = field and None not in spacing
        rows.append(
            [
                *(
                    stage["name"],
                    str(stage["channels"]),
                    _times(stage["size"]),
                    stage["short_skip"],
                    stage["long_skip"],
                ),
                *(short(stage["parameters"]), short(stage["multiply_adds"]), _times(field or "?")),
                _times(f"{n * mm:.0f}" for n, mm in zip(field, spacing, strict=True)) if known else "?",
                f"{stage['saved_mib']:.1f}",
            ]
        )
    total = short(facts["parameters"]), short(facts["multiply_adds"]), "", "", f"{facts['saved_mib']:.1f}"
    columns = ["stage", "channels", "size", "short", "long", "params", "mult-adds", "sees voxels", "sees mm", "MiB"]
    show_table("for one patch", columns, [*rows, ["all", "", "", "", "", *total]])
    log.info("drawn in %s", file.with_suffix(".png"))


def _times(values: Iterable[object]) -> str:
    return "x".join(map(str, values))
