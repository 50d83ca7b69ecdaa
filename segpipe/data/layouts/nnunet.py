"""The raw layout of nnU-Net v2 (Isensee 2021): one file per channel."""

import os
import re
import reprlib
from pathlib import Path
from typing import Any

from segpipe.config.data import Data
from segpipe.data.cases import Case, Dataset, check_files, name_of
from segpipe.data.layouts.base import Layout, content_hint, list_folder
from segpipe.data.layouts.channel_files import ChannelFiles
from segpipe.data.layouts.dataset_json import DatasetJson, mentions
from segpipe.data.layouts.nnunet_labels import DeclaredLabels, read_labels
from segpipe.data.tables import file_named
from segpipe.errors import ConfigError, DataError
from segpipe.io.formats import ENDINGS, ending_of
from segpipe.registry import LAYOUTS
from segpipe.text import count


@LAYOUTS.register("nnunet", help="nnU-Net v2 (raw): imagesTr, labelsTr, a file per channel")
class NnUNet(Layout):
    """Folders `imagesTr` and `labelsTr`; `dataset.json` names channels and labels.

    Where `dataset.json` has a `dataset`, that names the files of each training case instead.
    """

    signs = ("dataset.json", "imagesTr", "labelsTr")

    def looks_like(self, root: Path) -> bool:
        """Return whether `dataset.json` names channels."""
        return mentions(root, "channel_names")

    def read(self, data: Data) -> Dataset:
        """Read the cases of the folders `imagesTr` and `imagesTs`."""
        listing = DatasetJson.read(data, "channel_names")
        root = listing.file.parent
        ending = _file_ending(listing)
        names = listing.names_by_number("channel_names", '{"0": "T1", ...}')
        channels = tuple(names.values())
        if "dataset" in listing.content:
            train = _mapped_cases(listing, len(channels))
        else:
            train = _cases(root, "Tr", ending, len(channels))
            _check_found(root, train, ending)
        check_files(listing.file, train)
        listing.check_number_of_cases(len(train))
        declared = read_labels(listing) if data.labels is None else DeclaredLabels()
        return Dataset(
            name=listing.dataset_name,
            cases=train,
            test=_cases(root, "Ts", ending, len(channels)),
            labels=declared.labels,
            channels=channels,
            declares_channels=True,
            regions=declared.regions,
            paint=declared.paint,
            ignore=declared.ignore,
        )


def _file_ending(listing: DatasetJson) -> str:
    ending = listing.content.get("file_ending") or ".nii.gz"
    if not isinstance(ending, str) or ending_of(Path(f"x{ending}")) != ending.lower():
        raise DataError(
            f"{listing.file}: 'file_ending' is {reprlib.repr(ending)}, which is no format that "
            f"can be read (endings: {', '.join(ENDINGS)})"
        )
    return ending


def _mapped_cases(listing: DatasetJson, channels: int) -> tuple[Case, ...]:
    """Return the training cases that `dataset` names, by name."""
    mapping: Any = listing.content["dataset"]
    example = '{"case": {"images": ["a_0000.nii.gz"], "label": "a.nii.gz"}}'
    if not isinstance(mapping, dict) or not mapping:
        raise listing.wrong_value("dataset", example)
    cases = []
    for name, entry in mapping.items():
        images = entry.get("images") if isinstance(entry, dict) else None
        label = entry.get("label") if isinstance(entry, dict) else None
        if isinstance(images, str):
            images = [images]
        if not images or not isinstance(images, list) or not isinstance(label, str):
            raise _wrong_entry(listing, name, entry, "must look like " + example)
        if not all(isinstance(image, str) for image in images):
            raise _wrong_entry(listing, name, entry, "must look like " + example)
        if len(images) not in (1, channels):
            raise _wrong_entry(listing, name, entry, f"names {len(images)} images of {channels}")
        files = tuple(_expanded(listing, image) for image in images)
        cases.append(Case(name, files, _expanded(listing, label)))
    return tuple(sorted(cases, key=name_of))


def _wrong_entry(listing: DatasetJson, name: str, entry: object, problem: str) -> DataError:
    shown = reprlib.repr({name: entry})
    return DataError(f"{listing.file}: an entry of 'dataset' {problem}, got {shown}")


def _expanded(listing: DatasetJson, name: str) -> Path:
    """Return a file of `dataset`, in which nnU-Net allows variables of the environment."""
    return file_named(listing.file.parent, os.path.expandvars(name))


def _cases(root: Path, part: str, ending: str, channels: int) -> tuple[Case, ...]:
    """Return the cases of a part, `Tr` or `Ts`; only those of `Ts` may lack their label map."""
    images = ChannelFiles(root / f"images{part}")
    for path in list_folder(images.folder):
        match = re.fullmatch(rf"(.+)(_\d{{4}}){re.escape(ending)}", path.name)
        if match:
            images.add(match[1], match[2], path)
    single = all(list(files) == ["_0000"] for files in images.files.values())
    if single and not ending.startswith(".nii"):
        channels = 1  # nnU-Net names red, green and blue of a PNG that holds all three
    images.check(channels)
    labels = {}
    for name in images.files:
        label = root / f"labels{part}" / f"{name}{ending}"
        if part == "Tr" or os.path.isfile(label):
            labels[name] = label
    return images.cases(labels)


def _check_found(root: Path, cases: tuple[Case, ...], ending: str) -> None:
    """Check that there are training cases, and that no label map is without its image."""
    if not cases:
        raise ConfigError(
            f"data.root={root}: no file matches imagesTr/*_0000{ending}"
            f"{content_hint(root / 'imagesTr')}"
        )
    folder = root / "labelsTr"
    used = {case.label for case in cases}
    unused = []
    for path in list_folder(folder):
        if path.name.endswith(ending) and path not in used:
            unused.append(path)
    if unused:
        raise DataError(
            f"{folder}: {count(len(unused), 'label map')} without an image in imagesTr, such as "
            f"{unused[0].name}"
        )
