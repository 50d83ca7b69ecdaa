"""How a dataset lies on disk: Decathlon, nnU-Net v2, plain folders, or a table. Images are not opened here."""

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from segpipe.data.cases import ENDINGS, Case, Dataset, check_files, read_json, stem
from segpipe.data.tables import read_table
from segpipe.errors import ConfigError, DataError

CHANNEL = re.compile(r"_(\d{4})$")
LABEL_SUFFIX = re.compile(r"[_-](seg|segmentation|label|labels|mask)$", re.IGNORECASE)


def read_dataset(
    layout: Literal["decathlon", "nnunet", "folder", "table"],
    root: Path,
    *,
    images: str = "images",
    labels: str = "labels",
    declared: dict[str, int] | None = None,
) -> Dataset:
    """Finds the cases of a dataset.

    Args:
        layout: how it lies on disk (`data/README.md` draws each).
        root: its folder; for a table, the file or a folder that holds just one.
        images: name of the image folder, for `folder`.
        labels: name of the label folder, for `folder`.
        declared: label ids that replace the dataset's own.

    Raises:
        ConfigError: if `root` is not such a dataset.
        DataError: if it is one, but not in order.
    """
    if not root.exists():
        near = _closest(root.name, [entry.name for entry in root.parent.iterdir()] if root.parent.is_dir() else [])
        raise ConfigError(f"data.root={root}: no such folder{near}")
    dataset = {
        "decathlon": _decathlon,
        "nnunet": _nnunet,
        "folder": lambda folder: _folder(folder, images, labels),
        "table": read_table,
    }[layout](root)
    _check_cases(root, dataset.cases)
    if declared is not None:
        dataset = Dataset(
            dataset.name, dataset.cases, dataset.test, _background_first(declared, "data.labels"), dataset.channels
        )
    return dataset


def _decathlon(root: Path) -> Dataset:
    facts = _facts(root, "decathlon", needs="modality", other="channel_names", fits="nnunet")
    file = root / "dataset.json"

    def case(entry: Any) -> Case:
        image = root / (entry["image"] if isinstance(entry, dict) else entry)
        label = (
            root / entry["label"] if isinstance(entry, dict) and entry.get("label") else root / "labelsTs" / image.name
        )
        is_test = not (isinstance(entry, dict) and entry.get("label"))
        return Case(stem(image), (image,), None if is_test and not label.is_file() else label)

    try:
        train = [case(entry) for entry in facts["training"]]
        test = [case(entry) for entry in facts.get("test", [])]
        labels = {str(name): int(number) for number, name in facts["labels"].items()}
        channels = tuple(str(name) for _, name in sorted(facts["modality"].items(), key=lambda item: int(item[0])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{file}: its 'training', 'labels' or 'modality' is not as the Decathlon writes it ({error!r})"
        ) from None
    if len(labels) < len(facts["labels"]):
        raise DataError(f"{file}: two labels share a name in {facts['labels']}; each needs one of its own")
    check_files(file, train)
    named = tuple(sorted(train, key=lambda one: one.name))
    return Dataset(str(facts.get("name", root.name)), named, tuple(test), _background_first(labels, file), channels)


def _nnunet(root: Path) -> Dataset:
    facts = _facts(root, "nnunet", needs="channel_names", other="modality", fits="decathlon")
    file, ending = root / "dataset.json", str(facts.get("file_ending", ".nii.gz"))
    labels = facts.get("labels", {})
    for name, number in labels.items():
        if isinstance(number, list):
            raise DataError(
                f"{file}: label {name} is a region {number}; regions are not supported, give each label one id"
            )
        if name == "ignore":
            raise DataError(
                f"{file}: an ignore label ({number}) is not supported; leave it out of the labels and the maps"
            )
    channels = tuple(str(name) for _, name in sorted(facts["channel_names"].items(), key=lambda item: int(item[0])))

    def part(image_folder: str, label_folder: str) -> list[Case]:
        cases = []
        for name in sorted({path.name[: -len(ending) - 5] for path in (root / image_folder).glob(f"*_0000{ending}")}):
            paths = tuple(root / image_folder / f"{name}_{channel:04d}{ending}" for channel in range(len(channels)))
            if missing := [path.name for path in paths if not path.is_file()]:
                raise DataError(
                    f"{root / image_folder}: case {name} lacks {', '.join(missing)} of {len(channels)} channels"
                )
            label = root / label_folder / f"{name}{ending}"
            cases.append(Case(name, paths, label if label_folder == "labelsTr" or label.is_file() else None))
        return cases

    train = part("imagesTr", "labelsTr")
    if not train:
        raise ConfigError(f"data.root={root}: no file matches imagesTr/*_0000{ending}{_there(root / 'imagesTr')}")
    check_files(file, train)
    numbers = {str(name): int(number) for name, number in labels.items()}
    declared = _background_first(numbers, file)
    return Dataset(
        str(facts.get("name", root.name)), tuple(train), tuple(part("imagesTs", "labelsTs")), declared, channels
    )


def _folder(root: Path, images: str, labels: str) -> Dataset:
    for folder in (images, labels):
        if not (root / folder).is_dir():
            near = _closest(folder, [entry.name for entry in root.iterdir() if entry.is_dir()])
            raise ConfigError(f"data.root={root}: has no folder {folder}{near}{_fits(root)}")
    cases = _pair(root / images, root / labels)
    test_folder = root / "test" / images
    test = _pair(test_folder, root / "test" / labels) if (root / "test" / labels).is_dir() else []
    return Dataset(root.name, tuple(cases), tuple(test), None, ("image",))


def _pair(images: Path, labels: Path) -> list[Case]:
    """Images and labels of the same name; `_0000` channels and `_seg`, `_label`, `_mask` endings are understood."""
    label_of = {stem(path): path for path in _files(labels)}
    plain = {LABEL_SUFFIX.sub("", name): path for name, path in label_of.items()}
    grouped: dict[str, list[Path]] = {}
    for path in _files(images):
        name = stem(path)
        known = name in label_of or name in plain
        grouped.setdefault(name if known else CHANNEL.sub("", name), []).append(path)
    found = {name: label_of.get(name) or plain.get(name) for name in grouped}
    if lonely := [name for name, label in found.items() if label is None]:
        near = _closest(lonely[0], list(label_of))
        raise DataError(
            f"{images}: {len(lonely)} of {len(found)} images have no label of their name in {labels}, "
            f"as {lonely[0]}{near}"
        )
    if left := sorted(set(label_of.values()) - set(found.values())):
        near = _closest(stem(left[0]), list(found))
        raise DataError(
            f"{labels}: {len(left)} of {len(label_of)} labels have no image of their name in {images}, "
            f"as {left[0].name}{near}"
        )
    return [Case(name, tuple(sorted(paths)), found[name]) for name, paths in sorted(grouped.items())]


def _facts(root: Path, layout: str, needs: str, other: str, fits: str) -> dict[str, Any]:
    file = root / "dataset.json"
    if not file.is_file():
        raise ConfigError(f"data.root={root}: has no dataset.json, so it is not data={layout}{_fits(root)}")
    facts = read_json(file)
    if not isinstance(facts, dict) or needs not in facts:
        hint = f"; this looks like data={fits}" if isinstance(facts, dict) and other in facts else ""
        raise ConfigError(f"{file}: has no '{needs}', so it is not data={layout}{hint}")
    return facts


def _background_first(labels: dict[str, int], source: object) -> dict[str, int]:
    if 0 not in labels.values():
        raise DataError(f"{source}: the labels {labels} have no background; one of them must have the id 0")
    if len(set(labels.values())) < len(labels) or len(labels) < 2:
        raise DataError(f"{source}: the labels {labels} must be a background and others, each with an id of its own")
    return dict(sorted(labels.items(), key=lambda item: (item[1] != 0, item[1])))


def _check_cases(root: Path, cases: Sequence[Case]) -> None:
    for what, values in (
        ("case name", [case.name for case in cases]),
        ("image", [str(path) for case in cases for path in case.images]),
    ):
        value, count = Counter(values).most_common(1)[0] if values else ("", 0)
        if count > 1:
            raise DataError(f"{root}: the {what} {value} stands {count} times; each must stand once")


def _files(folder: Path) -> list[Path]:
    found = [path for path in sorted(folder.iterdir()) if stem(path) != path.name and not path.name.startswith(".")]
    if not found:
        raise ConfigError(f"{folder}: no file matches *{', *'.join(ENDINGS)}{_there(folder)}")
    return found


def _there(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return (
        f"; there are {len(names)} other entries, as {', '.join(names[:3])}"
        if names
        else "; the folder is empty or missing"
    )


def _closest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, 3, 0.4)
    return f"; closest: {', '.join(close)}" if close else ""


def _fits(root: Path) -> str:
    """Which layout a folder looks like."""
    entries = {entry.name for entry in root.iterdir()} if root.is_dir() else set()
    if "dataset.json" in entries:
        facts = read_json(root / "dataset.json")
        return f"; this looks like data={'nnunet' if 'channel_names' in facts else 'decathlon'}"
    if {"images", "labels"} <= entries:
        return "; this looks like data=folder"
    tables = any(name.endswith((".csv", ".tsv")) for name in entries)
    return "; this looks like data=table" if tables else ""
