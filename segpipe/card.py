"""`python -m segpipe.card checkpoint=RUN`: what a checkpoint says of itself, on one screen."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from segpipe.cli import launch, print_page
from segpipe.config.checkpoint_tools import Card
from segpipe.config.validation import validate

UNKNOWN = "not noted"


def card(file: Path) -> str:
    """The card of a checkpoint, or of the best one of a run.

    Raises:
        ConfigError: if there is none.
    """
    from segpipe import checkpoint

    trained = checkpoint.load(file)
    plan, data, model = trained.plan, trained.data, trained.config["model"]
    weights = sum(weight.numel() for weight in trained.network.parameters())
    known = [
        value for value in trained.dice.values() if not math.isnan(value)
    ]  # of labels that the cases have
    seen = f"slices across axis {plan.slice_axis}" if plan.slice_axis is not None else "volumes"
    rows: list[tuple[str, Iterable[str]]] = [
        ("file", [f"{checkpoint.find(file)} (segpipe {trained.version}, step {trained.step:,})"]),
        ("network", [f"{model['network']}, {model['dims']}D, {weights:,} parameters, on {seen}"]),
        (
            "channels",
            [f"{name} ({how})" for name, how in zip(plan.channels, plan.normalise, strict=True)],
        ),
        ("labels", [f"{number} {name}" for name, number in plan.labels.items()]),
        (
            "regions",
            [f"{name} of {', '.join(map(str, ids))}" for name, ids in (plan.regions or {}).items()],
        ),
        (
            "data",
            [
                f"{data.name}: {data.train} cases train, {data.validate} validate"
                if data
                else UNKNOWN
            ],
        ),
        ("data hash", [data.content if data else UNKNOWN]),
        ("Dice", [f"{value:.4f} {name}" for name, value in trained.dice.items()] or [UNKNOWN]),
        (
            "mean Dice",
            [f"{sum(known) / len(known):.4f} over whole validation scans"] if known else [],
        ),
        ("plan", plan.reasons),
        ("use", [f"segpipe-predict checkpoint={file} input=SCANS output=MASKS"]),
    ]
    return "\n".join(_lines(rows))


def _lines(rows: list[tuple[str, Iterable[str]]]) -> Iterator[str]:
    widest = max(len(name) for name, _ in rows)
    for name, lines in rows:
        for number, line in enumerate(lines):
            yield f"{'' if number else name:{widest}}  {line}"


def _print(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Card, values)
    assert options.checkpoint is not None
    print_page(card(options.checkpoint))
    return 0


if __name__ == "__main__":
    launch("card", Card, _print, "python -m segpipe.card")
