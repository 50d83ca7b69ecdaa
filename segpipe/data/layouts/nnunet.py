"""The raw layout of nnU-Net v2 (Isensee 2021): one file per channel."""

import re
from pathlib import Path

from segpipe.config.data import Data
from segpipe.data.cases import Case, Dataset, check_files, order_labels
from segpipe.data.layouts.base import Layout, content_hint, list_folder
from segpipe.data.layouts.channel_files import ChannelFiles
from segpipe.data.layouts.dataset_json import DatasetJson, mentions
from segpipe.errors import ConfigError, DataError
from segpipe.registry import LAYOUTS


@LAYOUTS.register("nnunet", help="nnU-Net v2 (raw): imagesTr, labelsTr, a file per channel")
class NnUNet(Layout):
    """Folders `imagesTr` and `labelsTr`; `dataset.json` names channels and labels."""

    def looks_like(self, root: Path) -> bool:
        """Return whether `dataset.json` names channels."""
        return mentions(root, "channel_names")

    def read(self, data: Data) -> Dataset:
        """Read the cases of the folders `imagesTr` and `imagesTs`."""
        listing = DatasetJson.read(data, "channel_names")
        root = listing.file.parent
        ending = str(listing.content.get("file_ending") or ".nii.gz")
        names = listing.names_by_number("channel_names", '{"0": "T1", ...}')
        channels = tuple(names.values())
        train = _cases(root, "Tr", ending, len(channels))
        if not train:
            raise ConfigError(
                f"data.root={root}: no file matches imagesTr/*_0000{ending}"
                f"{content_hint(root / 'imagesTr')}"
            )
        check_files(listing.file, train)
        _check_labels_have_images(root / "labelsTr", train, ending)
        return Dataset(
            name=listing.dataset_name,
            cases=train,
            test=_cases(root, "Ts", ending, len(channels)),
            labels=_labels(listing) if data.labels is None else None,
            channels=channels,
            declares_channels=True,
        )


def _labels(listing: DatasetJson) -> dict[str, int]:
    labels = listing.content.get("labels")
    for name, value in labels.items() if isinstance(labels, dict) else ():
        if isinstance(value, list) or name == "ignore":
            raise DataError(
                f"{listing.file}: label {name}: {value}: regions and ignore labels are not read "
                "from here; give plain ids by data.labels={background:0,edema:1}, and regions by "
                "data.regions"
            )
    return order_labels(listing.numbers_by_name("labels", '{"background": 0, ...}'), listing.file)


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
        if part == "Tr" or label.is_file():
            labels[name] = label
    return images.cases(labels)


def _check_labels_have_images(folder: Path, cases: tuple[Case, ...], ending: str) -> None:
    used = {case.label for case in cases}
    unused = []
    for path in list_folder(folder):
        if path.name.endswith(ending) and path not in used:
            unused.append(path)
    if unused:
        raise DataError(
            f"{folder}: {len(unused)} labels have no image in imagesTr, such as {unused[0].name}"
        )
