"""The layout of the Medical Segmentation Decathlon (Antonelli 2022)."""

import os
import reprlib
from pathlib import Path

from segpipe.config.data import Data
from segpipe.data.cases import Case, Dataset, check_files, name_of, order_labels
from segpipe.data.layouts.base import Layout
from segpipe.data.layouts.dataset_json import DatasetJson, mentions
from segpipe.data.tables import file_named
from segpipe.errors import DataError
from segpipe.io.formats import stem
from segpipe.registry import LAYOUTS


@LAYOUTS.register("decathlon", help="Medical Segmentation Decathlon: dataset.json lists the cases")
class Decathlon(Layout):
    """`dataset.json` lists the cases; an image file may hold several channels."""

    signs = ("dataset.json", "imagesTr", "labelsTr")

    def looks_like(self, root: Path) -> bool:
        """Return whether `dataset.json` names modalities."""
        return mentions(root, "modality")

    def read(self, data: Data) -> Dataset:
        """Read the cases that `dataset.json` lists."""
        listing = DatasetJson.read(data, "modality")
        channels = listing.names_by_number("modality", '{"0": "MRI", ...}').values()
        train = _listed_cases(listing, "training")
        listing.check_number_of_cases(len(train))
        if not train:
            raise DataError(
                f"{listing.file}: 'training' lists no case; each is an object with image and label"
            )
        return Dataset(
            name=listing.dataset_name,
            cases=train,
            test=_listed_cases(listing, "test"),
            labels=_labels(listing) if data.labels is None else None,
            channels=tuple(channels),
            declares_channels=True,
        )


def _labels(listing: DatasetJson) -> dict[str, int]:
    names = listing.names_by_number("labels", '{"0": "background", ...}')
    labels = {name: number for number, name in names.items()}
    if len(labels) < len(names):
        shown = reprlib.repr(listing.content["labels"])
        raise DataError(
            f"{listing.file}: two labels share a name in {shown}; each needs a name of its own"
        )
    return order_labels(labels, listing.file)


def _listed_cases(listing: DatasetJson, key: str) -> tuple[Case, ...]:
    entries = listing.content.get(key, [])
    if not isinstance(entries, list):
        raise DataError(
            f"{listing.file}: '{key}' must be a list of cases, got {reprlib.repr(entries)}"
        )
    cases = [_listed_case(listing.file, key, entry) for entry in entries]
    check_files(listing.file, cases)
    return tuple(sorted(cases, key=name_of))


def _listed_case(file: Path, key: str, entry: object) -> Case:
    names = entry if isinstance(entry, dict) else {"image": entry}
    image = names.get("image")
    label = names.get("label")
    is_training = key == "training"
    if (
        not isinstance(image, str)
        or not isinstance(label, str | None)
        or (is_training and not label)
    ):
        needs = "an image and a label" if is_training else "an image"
        raise DataError(
            f"{file}: each case of '{key}' must name {needs}, got {reprlib.repr(entry)}"
        )
    image_file = file_named(file.parent, image)
    if label:
        return Case(stem(image_file), (image_file,), file_named(file.parent, label))
    test_label = file.parent / "labelsTs" / image_file.name
    return Case(stem(image_file), (image_file,), test_label if os.path.isfile(test_label) else None)
