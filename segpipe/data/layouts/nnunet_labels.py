"""The labels of nnU-Net's `dataset.json`: plain ids, regions, and voxels to ignore."""

from dataclasses import dataclass
from typing import Any

from segpipe.data.cases import order_labels
from segpipe.data.layouts.dataset_json import DatasetJson

EXAMPLE = '{"background": 0, "edema": 1, "core": [1, 2], "ignore": 3}'


@dataclass(frozen=True)
class DeclaredLabels:
    """What `labels` and `regions_class_order` say.

    Attributes:
        labels: name -> id on disk, the background first, without ids to ignore.
        regions: name -> ids on disk; None where each label is one id.
        paint: region name -> id on disk in masks.
        ignore: id on disk of voxels that nobody has annotated.
    """

    labels: dict[str, int] | None = None
    regions: dict[str, list[int]] | None = None
    paint: dict[str, int] | None = None
    ignore: int | None = None


def read_labels(listing: DatasetJson) -> DeclaredLabels:
    """Return the labels that a `dataset.json` declares.

    Raises:
        DataError: if they cannot be such labels.
    """
    unions = listing.unions_by_name("labels", EXAMPLE)
    ignored = unions.pop("ignore", None)
    ignore = ignored[0] if ignored else None
    regions = {name: ids for name, ids in unions.items() if ids != [0]}
    if all(len(ids) == 1 for ids in regions.values()):
        labels = {name: ids[0] for name, ids in unions.items()}
        return DeclaredLabels(order_labels(labels, listing.file), ignore=ignore)
    labels = order_labels(_united(unions), listing.file)
    return DeclaredLabels(labels, regions, _paint(listing, regions), ignore)


def _united(unions: dict[str, list[int]]) -> dict[str, int]:
    """Return a label for each id of the regions; one that is an id alone gives it its name."""
    names: dict[int, str] = {}
    for name, ids in unions.items():
        if len(ids) == 1:
            names.setdefault(ids[0], name)
    labels = {}
    for number in sorted(set().union(*unions.values())):
        labels[names.get(number, f"label {number}")] = number
    return labels


def _paint(listing: DatasetJson, regions: dict[str, list[int]]) -> dict[str, int] | None:
    """Return the id that each region paints, by `regions_class_order`; None where it is missing."""
    order: Any = listing.content.get("regions_class_order")
    if order is None:
        return None
    if not isinstance(order, list) or len(order) != len(regions) or 0 in order:
        raise listing.wrong_value(
            "regions_class_order", f"a list of {len(regions)} ids, one for each region"
        )
    numbers = [listing.number(entry, "regions_class_order", "[1, 2, 3]") for entry in order]
    return dict(zip(regions, numbers, strict=True))
