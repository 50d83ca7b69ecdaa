"""Open the dataset that the options name, and split its cases."""

from dataclasses import replace

from segpipe.config.train import Data
from segpipe.data.cases import Case, Dataset
from segpipe.data.layouts import read_dataset
from segpipe.data.phantom import write_phantom
from segpipe.data.split import Split, split_cases


def open_dataset(data: Data) -> Dataset:
    """Find the cases of a dataset; the phantom is generated first where it is not there.

    Raises:
        SegpipeError: if the dataset is not there or not in order.
    """
    assert data.root is not None
    if data.layout == "phantom":
        write_phantom(data.root, **data.phantom.model_dump())
        return read_dataset("decathlon", data.root)
    dataset = read_dataset(
        data.layout,
        data.root,
        images=data.image_folder,
        labels=data.label_folder,
        declared=data.labels,
    )
    if dataset.labels is None or data.ignore_label is None:
        return dataset
    labels = dict(dataset.labels)
    for name, number in dataset.labels.items():
        if number == data.ignore_label:
            del labels[name]
    return replace(dataset, labels=labels)


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
    by_name = {case.name: case for case in dataset.cases}
    train = [by_name[name] for name in split.train]
    val = [by_name[name] for name in split.val]
    return train, val
