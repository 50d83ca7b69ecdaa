"""`python -m segpipe.card checkpoint=RUN`: a description of a checkpoint, or its model card."""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.cli import launch, print_page
from segpipe.config.checkpoint_tools import Card
from segpipe.config.quoting import typed
from segpipe.config.validation import validate
from segpipe.files import write_text
from segpipe.metric_record import mean_of_known
from segpipe.text import count

if TYPE_CHECKING:
    from segpipe.checkpoint import Trained

log = logging.getLogger("segpipe")
UNKNOWN = "not noted"


def card(file: Path) -> str:
    """Return the description of a checkpoint, or of the best one of a run, as lines of text.

    Raises:
        ConfigError: if there is none.
    """
    from segpipe import checkpoint

    trained = checkpoint.load(file)
    version = f"(segpipe {trained.version}, step {trained.step:,})"
    rows: list[tuple[str, Iterable[str]]] = [
        ("file", [f"{checkpoint.find(file)} {version}"]),
        *_network_rows(trained),
        *_data_rows(trained),
        ("plan", trained.plan.reasons),
        ("use", [f"segpipe-predict {typed('checkpoint', file)} input=SCANS output=MASKS"]),
    ]
    return "\n".join(_lines(rows))


def _network_rows(trained: "Trained") -> Iterator[tuple[str, Iterable[str]]]:
    """Yield the rows on the network, its input channels and its outputs."""
    plan = trained.plan
    model = trained.config["model"]
    weights = sum(weight.numel() for weight in trained.network.parameters())
    seen = "volumes" if plan.slice_axis is None else f"slices across axis {plan.slice_axis}"
    if plan.slices == "scan":
        seen = "slices as each scan was acquired"
    yield "network", [f"{model['network']}, {model['dims']}D, {weights:,} parameters, on {seen}"]
    channels = zip(plan.channels, plan.normalise, strict=True)
    yield "channels", [f"{name} ({method})" for name, method in channels]
    yield "labels", [f"{number} {name}" for name, number in plan.labels.items()]
    regions = []
    for name, ids in (plan.regions or {}).items():
        regions.append(f"{name} of {', '.join(map(str, ids))}")
    yield "regions", regions


def _data_rows(trained: "Trained") -> Iterator[tuple[str, Iterable[str]]]:
    """Yield the rows on the cases of the training and on the scores."""
    data = trained.data
    if data is None:
        yield "data", [UNKNOWN]
        yield "data hash", [UNKNOWN]
    else:
        train = count(data.train, "training case")
        validate = count(data.validate, "validation case")
        yield "data", [f"{data.name}: {train}, {validate}"]
        yield "data hash", [data.content]
    if trained.initial is not None:
        source = trained.initial
        known = f"step {source.step:,}, {source.data or UNKNOWN}, hash {source.content}"
        yield "started from", [f"{source.path} ({known})"]
    scores = [f"{value:.4f} {name}" for name, value in trained.dice.items()]
    yield "Dice", scores or [UNKNOWN]
    mean = mean_of_known(trained.dice.values())  # labels that no validation case has are NaN
    if not math.isnan(mean):
        yield "mean Dice", [f"{mean:.4f} over whole validation scans"]


def _lines(rows: Sequence[tuple[str, Iterable[str]]]) -> Iterator[str]:
    """Yield the lines of all rows, with the name beside the first line of each."""
    width = max(len(name) for name, _ in rows)
    for name, lines in rows:
        for number, line in enumerate(lines):
            heading = "" if number else name
            yield f"{heading:{width}}  {line}"


def _print(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Card, values)
    assert options.checkpoint is not None
    from segpipe.exporting.model_card import model_card  # loads torch, which --help does not need

    if options.format == "methods":
        return _methods(options.checkpoint, options.output)
    write = model_card if options.format == "hub" else card
    text = write(options.checkpoint)
    if options.output is None:
        print_page(text)
        return 0
    write_text(options.output, text if text.endswith("\n") else text + "\n")
    log.info("%s", options.output)
    return 0


def _methods(file: Path, output: Path | None) -> int:
    """Print the paragraphs on methods, or write them with their references."""
    from segpipe import checkpoint
    from segpipe.reporting.methods import methods, write_methods
    from segpipe.reporting.methods_record import record_of_checkpoint

    record = record_of_checkpoint(checkpoint.load(file))
    if output is None:
        print_page("\n\n".join(methods(record)))
        return 0
    write_methods(output, record)
    log.info("%s, beside it as .tex, and .bib", output)
    return 0


if __name__ == "__main__":
    launch("card", Card, _print, "python -m segpipe.card")
