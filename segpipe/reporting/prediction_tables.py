"""The tables of the page of a folder of masks: what failed, what is done."""

import math
from collections.abc import Collection, Mapping, Sequence

from segpipe.metric_record import mean_of_known
from segpipe.prediction.outputs import quality_rank
from segpipe.prediction.records import ScanRecord, label_names, units_of
from segpipe.reporting.page import Cell, Column, Link, Picture, Sorted, Table, Value
from segpipe.text import count, decimal


def failed_table(records: Sequence[ScanRecord]) -> Table:
    """Return the table of the scans that failed, by name."""
    rows = sorted([record.name, record.reason] for record in records)
    caption = f"{count(len(rows), 'scan')} without a mask"
    return Table(caption, [Column("scan"), Column("reason")], rows, Sorted(0))


def done_table(done: Sequence[ScanRecord], pictures: Mapping[str, Picture], scored: bool) -> Table:
    """Return the table of the scans that are done."""
    labels = label_names(done)
    targets = _targets(done)
    columns = [Column("scan"), Column("picture", sortable=False)]
    if scored:
        columns.append(Column("Dice, mean", 3))
    columns += [Column(f"Dice {name}", 3) for name in targets]
    judged = any(record.quality is not None for record in done)
    if judged:
        columns += [Column("Dice, predicted", 2), Column("why")]
    units = units_of(done)
    measured = _measured_truths(done)
    for name in labels:
        of_truth = " (true)" if name in measured else ""
        columns.append(Column(f"{name}, {units.volume}{of_truth}", units.digits))
    columns += [Column("time, s", 1), Column("warnings")]
    rows: list[list[Cell]] = []
    for record in done:
        row: list[Cell] = [Link(record.name, record.scan.mask_name)]
        row.append(_picture_cell(record, pictures))
        if scored:
            row.append(_mean_dice(record))
        row += _dice(record, targets)
        if judged:
            row += [record.quality, record.quality_reason]
        row += _volumes(record, labels, measured)
        row.append(sum(record.seconds.values()) if record.seconds else None)
        row.append("; ".join(record.warnings))
        rows.append(row)
    caption = f"{count(len(done), 'scan')}; the name is a link to the mask"
    if judged:
        caption += "; Dice, predicted is an estimate without the truth, and why is its reason"
    return Table(caption, columns, rows, Sorted(2 if scored or judged else 0))


def _picture_cell(record: ScanRecord, pictures: Mapping[str, Picture]) -> Cell:
    """Return the picture of a scan, or a link to it; None where none was drawn."""
    if record.name in pictures:
        return pictures[record.name]
    return Link("picture", record.picture) if record.drawn else None


def _dice(record: ScanRecord, targets: Sequence[str]) -> list[Cell]:
    """Return Dice per target; None where there is none."""
    dice = {score.label: score.dice for score in record.scores}
    return list(map(dice.get, targets))


def _volumes(record: ScanRecord, labels: Sequence[str], measured: Collection[str]) -> list[Cell]:
    """Return the volume per label, None where there is none, beside the true one where known."""
    units = record.units
    truths = {score.label: units.of_volume(score.truth_ml) for score in record.scores}
    volumes = dict(zip(record.labels, map(units.of_volume, record.volumes_ml), strict=True))
    cells: list[Cell] = []
    for label in labels:
        volume = volumes.get(label)
        truth = truths.get(label, math.nan)
        if volume is None or label not in measured or math.isnan(truth):
            cells.append(volume)
        else:
            text = f"{decimal(volume, units.digits)} ({decimal(truth, units.digits)})"
            cells.append(Value(volume, text))
    return cells


def _measured_truths(records: Sequence[ScanRecord]) -> set[str]:
    """Return the targets whose true volume is known of any scan."""
    names: set[str] = set()
    for record in records:
        names |= {score.label for score in record.scores if math.isfinite(score.truth_ml)}
    return names


def _targets(records: Sequence[ScanRecord]) -> list[str]:
    """Return the names of the targets that were scored, in the order of their first appearance."""
    names: dict[str, None] = {}
    for record in records:
        names |= dict.fromkeys(score.label for score in record.scores)
    return list(names)


def rank(record: ScanRecord) -> float:
    """Return by what scans are sorted, the worst first: the Dice, or else the predicted one."""
    dice = _mean_dice(record)
    return quality_rank(record) if math.isnan(dice) else dice


def _mean_dice(record: ScanRecord) -> float:
    """Return the mean Dice of the targets that either mask has; NaN where there is no truth."""
    return mean_of_known(score.dice for score in record.scores)
