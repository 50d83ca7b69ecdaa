"""Score masks of any tool against truths, case by case; one that is refused stops no other."""

import logging
import os
from pathlib import Path

from segpipe.config.evaluate import Evaluate
from segpipe.errors import ConfigError
from segpipe.evaluate.labels import find_scheme
from segpipe.evaluate.pairing import Pairing, find_pairs
from segpipe.evaluate.report import (
    MACHINES,
    PAGE,
    Evaluation,
    complete,
    missing_lines,
    write_evaluation,
)
from segpipe.evaluate.scoring import CaseResult, Settings, score_pairs
from segpipe.files import make_folder, remove_abandoned_parts
from segpipe.metrics import check_scoring
from segpipe.reporting.rendering import show_scores, show_verdict
from segpipe.terminal import progress_bar, show_next
from segpipe.text import count

log = logging.getLogger("segpipe")
SOME_REFUSED = 3


def evaluate(options: Evaluate) -> int:
    """Score masks against truths, and write page, JSON and tables.

    Returns:
        The exit status: 3 where a case was refused, or, where `strict` is set, has no mask or no
        truth; else 0.

    Raises:
        ConfigError: if the masks, the truths or the output cannot be used.
        DataError: if the results cannot be written.
    """
    assert options.output is not None
    pairing = find_pairs(options)
    scheme = find_scheme(options)
    if scheme.labels is not None:
        check_scoring(options, scheme.labels)
    _check_output(options.output, pairing)
    make_folder(options.output)
    remove_abandoned_parts(options.output)
    overlays = options.output / "overlays" if options.overlays else None
    settings = Settings(scheme, options, overlays)
    results = _score_all(pairing, settings, options)
    found = Evaluation(options, scheme.labels, pairing, results, complete(results))
    write_evaluation(found, options.output)
    _show(found, options.output)
    is_incomplete = bool(pairing.without_prediction or pairing.without_truth)
    return SOME_REFUSED if found.refused or (options.strict and is_incomplete) else 0


def _check_output(output: Path, pairing: Pairing) -> None:
    """Check that no result is written among the masks or the truths.

    Raises:
        ConfigError: if one would be.
    """
    folder = os.path.realpath(output)
    for pair in pairing.pairs:
        for file in (pair.prediction, pair.truth, pair.image):
            if file is not None and os.path.realpath(file.parent) == folder:
                raise ConfigError(
                    f"output={output}: holds masks, truths or scans; choose another folder"
                )


def _score_all(pairing: Pairing, settings: Settings, options: Evaluate) -> list[CaseResult]:
    """Return the results of all cases, each of them logged as it comes."""
    results: list[CaseResult] = []
    with progress_bar() as bar:
        task = bar.add_task("scoring", total=len(pairing.pairs), note="")
        for result in score_pairs(pairing.pairs, settings, options.workers, options.extensions):
            results.append(result)
            for warning in result.warnings:
                log.warning("%s: %s", result.name, warning)
            bar.advance(task)
    return results


def _show(found: Evaluation, folder: Path) -> None:
    """Print scores, what is missing or refused, the files and the verdict."""
    scored = len(found.results) - len(found.refused)
    if found.scores:
        title = f"{count(scored, 'mask')} against {found.options.truth or found.options.prediction}"
        show_scores(found.scores, title, found.units)
    for line in missing_lines(found):
        log.warning("%s", line)
    for result in found.refused:
        log.error("refused: %s", result.reason)
    log.info("%d scored, %d refused", scored, len(found.refused))
    files = {"look at": PAGE, "table": "scores.csv", "for machines": MACHINES}
    show_next([(purpose, folder / name) for purpose, name in files.items()])
    if found.verdict is not None:
        show_verdict(found.verdict)
