"""A batch of predictions: a mask for each scan, by one worker or several, once or ever again."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event as Flag
from typing import Any

from segpipe.config.predict import Predict
from segpipe.engines.board import Board
from segpipe.errors import BatchInterruptedError, NoScanError
from segpipe.files import make_folder, remove_abandoned_parts
from segpipe.metrics import check_scoring
from segpipe.plan import Plan
from segpipe.prediction.arrivals import Arrivals
from segpipe.prediction.channel_sets import Scan
from segpipe.prediction.outputs import check_output_paths
from segpipe.prediction.places import LOCAL, Places
from segpipe.prediction.prefetch import interruption
from segpipe.prediction.scans import find_scans, in_shard
from segpipe.prediction.truths import find_truths
from segpipe.registry import ENGINES
from segpipe.reporting.prediction_summary import Outcomes, show_batch
from segpipe.text import count

log = logging.getLogger("segpipe")
SOME_FAILED = 3
POLL_S = 2.0  # between two looks at scans that other calls have claimed


def predict_batch(options: Predict, places: Places = LOCAL) -> int:
    """Write a mask for each scan, `predictions.csv`, pictures, and scores where the truth is given.

    A mask that is there already, made of the same content by the same weights and settings, is left
    as it is. Where `watch` is set, this ends by a signal alone.

    Args:
        options: the options of the call, whose input and output are on this machine.
        places: the places that the input and output of the options stand for.

    Returns:
        The exit status: 3 when a scan has failed in this call that did not fail before, or, where
        `strict` is set, when any has no mask or score; else 0.

    Raises:
        ConfigError: if the checkpoint, the input or the output cannot be used.
        DataError: if the disk is full.
        BatchInterruptedError: if the batch was interrupted.
    """
    assert options.output is not None
    with ENGINES[options.engine](options, places) as team:
        check_scoring(options, team.plan.targets)
        scans = _first_scans(options, team.plan)
        places.check(scans)
        make_folder(options.output)
        remove_abandoned_parts(options.output)
        board = Board(options, team.calls, places)
        with team.calls.joined(), interruption() as interrupted:
            try:
                if options.watch is not None:
                    _watch(options, team, board, interrupted)
                _settle(scans, team, board, interrupted)
            finally:
                board.views.finish()
        output = places.shown(options.output)
        show_batch(board.outcomes, team.plan.label_names, output, options.truth)
    return status_of(board.outcomes, options.strict)


def status_of(outcomes: Outcomes, strict: bool) -> int:
    """Return the exit status of a batch."""
    is_bad = bool(outcomes.failed or outcomes.incomplete)
    if strict:
        is_bad |= bool(outcomes.known or outcomes.incomplete_before)
    return SOME_FAILED if is_bad else 0


def requested_scans(options: Predict, plan: Plan, quiet: bool = False) -> list[Scan]:
    """Return the scans of a call, each with its truth where that is given.

    Args:
        options: the options of the call.
        plan: the plan of the network.
        quiet: whether nothing is said of what is passed over.

    Raises:
        ConfigError: if there is none, or a truth is missing.
    """
    assert options.input is not None
    assert options.output is not None
    scans = find_scans(
        options.input,
        options.output,
        len(plan.channels),
        options.recursive,
        options.columns,
        quiet,
    )
    check_output_paths(scans, options.save, options.overlays)
    scans = in_shard(scans, options.shard)
    truths = find_truths(scans, options.truth, options.output)
    return [replace(scan, truth=truths.get(scan.name)) for scan in scans]


def _first_scans(options: Predict, plan: Plan) -> list[Scan]:
    """Return the scans of a call; none where they are to arrive in a folder that is there.

    Raises:
        ConfigError: if there is none.
    """
    try:
        return requested_scans(options, plan)
    except NoScanError:
        if options.watch is None or not Path(str(options.input)).is_dir():
            raise
        return []


def _settle(scans: Sequence[Scan], team: Any, board: Board, interrupted: Flag) -> None:
    """Let a team settle scans; wait for those that other calls have claimed.

    Raises:
        DataError: if the disk is full.
        BatchInterruptedError: if it was interrupted; what is done is kept.
    """
    log.info("%s, %s", count(len(scans), "scan"), team.description)
    left = scans
    with board.begin(len(scans)):
        while left and not interrupted.is_set():
            board.begin_round()
            team.settle(left, board.take, interrupted)
            if len(board.claimed) == len(left):  # others are at work on all that is left
                interrupted.wait(POLL_S)
            left = board.claimed
    if interrupted.is_set():
        raise BatchInterruptedError(
            f"interrupted: {board.outcomes.settled} of {len(scans)} scans are settled; "
            "run again to go on"
        )


def _watch(options: Predict, team: Any, board: Board, interrupted: Flag) -> None:
    """Settle scans as they arrive, without end.

    Raises:
        DataError: if the disk is full.
        BatchInterruptedError: if it was interrupted.
    """
    assert options.watch is not None
    assert options.output is not None
    arrivals = Arrivals(lambda: requested_scans(options, team.plan, quiet=True), options.watch)
    log.info("watching %s every %g s", options.input, options.watch)
    while not interrupted.is_set():
        scans = arrivals.look()
        if scans:
            _settle(scans, team, board, interrupted)
            show_batch(board.outcomes, team.plan.label_names, str(options.output), options.truth)
        board.views.refresh()
        interrupted.wait(options.watch)
    raise BatchInterruptedError("interrupted: no more scans are watched for")
