"""A folder of images and a folder of label maps of the same names."""

import re
from collections.abc import Container
from pathlib import Path

from segpipe.config.data import Data
from segpipe.data.cases import Case, Dataset
from segpipe.data.layouts.base import (
    Layout,
    closest_hint,
    content_hint,
    layout_hint,
    list_folder,
    list_subfolders,
    root_folder,
)
from segpipe.data.layouts.channel_files import ChannelFiles
from segpipe.errors import ConfigError, DataError
from segpipe.io.dicom import is_dicom, is_series
from segpipe.io.formats import ENDINGS, ending_of, stem
from segpipe.registry import LAYOUTS

CHANNEL_SUFFIX = re.compile(r"_\d{4}$")
LABEL_SUFFIX = re.compile(r"[_-](seg|segmentation|label|labels|mask)$", re.IGNORECASE)


@LAYOUTS.register("folder", help="two folders, images and labels, with the same file names")
class Folder(Layout):
    """Two folders whose names are options; the same two below `test/` are the test part."""

    signs = ("images", "labels")

    def looks_like(self, root: Path) -> bool:
        """Return whether there are folders `images` and `labels`."""
        return (root / "images").is_dir() and (root / "labels").is_dir()

    def read(self, data: Data) -> Dataset:
        """Read the cases of the two folders."""
        root = root_folder(data)
        for name in (data.image_folder, data.label_folder):
            _check_subfolder(root, name)
        cases = _labelled_cases(root / data.image_folder, root / data.label_folder)
        test_images = root / "test" / data.image_folder
        test_labels = root / "test" / data.label_folder
        test: tuple[Case, ...] = ()
        if test_labels.is_dir():
            test = _labelled_cases(test_images, test_labels)
        elif test_images.is_dir():
            test = _unlabelled_cases(test_images, cases[0])
        return Dataset(root.name, cases, test, None, ("image",))


def _check_subfolder(root: Path, name: str) -> None:
    if not (root / name).is_dir():
        folders = [path.name for path in list_subfolders(root)]
        hint = closest_hint(name, folders)
        raise ConfigError(f"data.root={root}: has no folder {name}{hint}{layout_hint(root)}")


def _labelled_cases(images: Path, labels: Path) -> tuple[Case, ...]:
    """Return the cases whose image and label map have the same name.

    A name may end in `_0000` for a channel, and in `_seg`, `_label` or `_mask` for a label map.
    """
    image_files = _files_by_stem(images)
    label_files = _files_by_stem(labels)
    case_labels = {LABEL_SUFFIX.sub("", name): path for name, path in label_files.items()}
    case_labels |= label_files
    grouped = _group_channels(images, image_files, case_labels)
    _check_images_have_labels(grouped, labels, case_labels, image_files, label_files)
    _check_labels_have_images(grouped, labels, case_labels, image_files, label_files)
    grouped.check(grouped.most_channels())
    return grouped.cases(case_labels)


def _check_images_have_labels(
    grouped: ChannelFiles,
    labels: Path,
    case_labels: dict[str, Path],
    image_files: dict[str, Path],
    label_files: dict[str, Path],
) -> None:
    unlabelled: list[Path] = []
    for name in grouped.files.keys() - case_labels.keys():
        unlabelled += grouped.files[name].values()
    if unlabelled:
        first = min(unlabelled)
        hint = closest_hint(stem(first), list(label_files))
        raise DataError(
            f"{grouped.folder}: {len(unlabelled)} of {len(image_files)} images have no label of "
            f"their name in {labels}, such as {first.name}{hint}"
        )


def _check_labels_have_images(
    grouped: ChannelFiles,
    labels: Path,
    case_labels: dict[str, Path],
    image_files: dict[str, Path],
    label_files: dict[str, Path],
) -> None:
    used = {case_labels[name] for name in grouped.files}
    unused = sorted(set(label_files.values()) - used)
    if unused:
        first = unused[0]
        hint = closest_hint(stem(first), list(image_files))
        raise DataError(
            f"{labels}: {len(unused)} of {len(label_files)} labels have no image of their name in "
            f"{grouped.folder}, such as {first.name}{hint}"
        )


def _unlabelled_cases(images: Path, example: Case) -> tuple[Case, ...]:
    """Return the cases of a folder without label maps, with the channels of a labelled `example`.

    Only where there are label maps can be seen whether `_0000` ends a channel's name or a case's.
    """
    image_files = _files_by_stem(images)
    has_no_suffix = stem(example.images[0]) == example.name
    grouped = _group_channels(images, image_files, image_files if has_no_suffix else ())
    grouped.check(len(example.images))
    return grouped.cases({})


def _group_channels(
    folder: Path, image_files: dict[str, Path], case_names: Container[str]
) -> ChannelFiles:
    """Group the images by case; a name that is no case's is taken for that of a channel."""
    grouped = ChannelFiles(folder)
    for name, path in image_files.items():
        case = name if name in case_names else CHANNEL_SUFFIX.sub("", name)
        grouped.add(case, name.removeprefix(case), path)
    return grouped


def _is_dicom(path: Path) -> bool:
    """Return whether a path is a DICOM file, or a folder of such."""
    if path.is_dir():
        return is_series(path)
    return path.is_file() and is_dicom(path)


def _files_by_stem(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by their name without the ending."""
    files: dict[str, Path] = {}
    for path in list_folder(folder):
        if not ending_of(path) and not _is_dicom(path):
            continue
        name = stem(path)
        if name in files:
            raise DataError(
                f"{folder}: {files[name].name} and {path.name} have the same name, {name}; keep one"
            )
        files[name] = path
    if not files:
        raise ConfigError(f"{folder}: no file matches *{', *'.join(ENDINGS)}{content_hint(folder)}")
    return files
