"""Open the dataset that the options name, and split its cases."""

from dataclasses import replace
from typing import Any

from segpipe.config.data import Data
from segpipe.config.train import Train
from segpipe.data.cases import Case, Dataset, check_unique, order_labels
from segpipe.data.grouping import group_cases
from segpipe.data.layouts.base import Layout
from segpipe.data.recognition import recognised
from segpipe.data.split import Split, split_cases
from segpipe.errors import ConfigError
from segpipe.io.dicom_stacks import TOLERANCE
from segpipe.registry import LAYOUTS


def open_for_training(options: Train) -> tuple[Train, Dataset]:
    """Return the dataset of a run, and the run's options with all that the dataset declares.

    `data.root` alone may be a dataset of any layout. The regions of the dataset, the ids by which
    masks show them, and the id of what nobody has annotated become options where none are given.

    Raises:
        SegpipeError: as `open_dataset` does.
    """
    TOLERANCE.mm = options.data.slice_tolerance
    data = recognised(options.data)
    dataset = open_dataset(data)
    declared: dict[str, Any] = {}
    if data.ignore_label is None:
        declared["ignore_label"] = dataset.ignore
    if data.regions is None and dataset.regions is not None:
        declared["regions"] = dataset.regions
        declared["paint"] = data.paint or dataset.paint
    data = data.model_copy(update=declared)
    return options.model_copy(update={"data": data}), dataset


def open_dataset(data: Data) -> Dataset:
    """Find the cases of the dataset in `data.root`; images are not opened.

    Labels are those of `data.labels` where given, else what the dataset declares, without
    `data.ignore_label`. Groups are those of `data.group` where given.

    Raises:
        ConfigError: if `data.root` is not a dataset of the layout `data.layout`, `data.labels`
            cannot be the labels of one, or `data.group` finds no patient.
        DataError: if it is one, but its files are inconsistent.
    """
    layout: Layout = LAYOUTS[data.layout]()
    dataset = layout.read(data)
    assert data.root is not None
    check_unique(data.root, dataset)
    labels = dataset.labels
    if data.labels is not None:
        labels = order_labels(data.labels, "data.labels", ConfigError)
    if labels is not None and data.ignore_label is not None:
        labels = _without_id(labels, data.ignore_label)
    cases = dataset.cases
    if data.group is not None:
        cases = group_cases(cases, data.group)
    return replace(dataset, labels=labels, cases=cases)


def _without_id(labels: dict[str, int], ignored: int) -> dict[str, int]:
    remaining = dict(labels)
    for name, number in labels.items():
        if number == ignored:
            del remaining[name]
    return remaining


def split_dataset(dataset: Dataset, data: Data) -> Split:
    """Return the split that the options ask for.

    Raises:
        ConfigError: if the split cannot be made.
    """
    return split_cases(
        dataset.cases, file=data.split, folds=data.folds, fold=data.fold, fraction=data.fraction
    )


def select_cases(dataset: Dataset, split: Split) -> tuple[list[Case], list[Case]]:
    """Return the cases that train and those that validate."""
    cases = {case.name: case for case in dataset.cases}
    train = [cases[name] for name in split.train]
    val = [cases[name] for name in split.val]
    return train, val
