"""`python -m segpipe.evaluate`: score masks of any tool against truths."""

from pathlib import Path
from typing import Any

from segpipe.cli import launch
from segpipe.config.evaluate import Evaluate
from segpipe.config.validation import validate


def _evaluate(values: dict[str, Any], _folder: Path, _overrides: list[str]) -> int:
    options = validate(Evaluate, values)
    assert options.output is not None
    from segpipe.evaluate.run import evaluate  # torch takes long to import
    from segpipe.reporting.formats import figures_as
    from segpipe.terminal import logged_to

    with logged_to(options.output / "evaluate.log"), figures_as(options.page.figures):
        return evaluate(options)


if __name__ == "__main__":
    launch("evaluate", Evaluate, _evaluate, "python -m segpipe.evaluate")
