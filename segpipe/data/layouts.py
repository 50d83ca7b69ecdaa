"""How a dataset lies on disk: Decathlon, nnU-Net v2, plain folders, or a table. Images are not opened here."""

import difflib
import re
import reprlib
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from segpipe.data.cases import ENDINGS, Case, Dataset, check_files, read_json, stem
from segpipe.data.tables import read_table
from segpipe.errors import ConfigError, DataError, SegpipeError

CHANNEL = re.compile(r"_\d{4}$")
Numbered = tuple[int, str]
LABEL_SUFFIX = re.compile(r"[_-](seg|segmentation|label|labels|mask)$", re.IGNORECASE)

Channels = dict[
    str, dict[str, Path]
]  # the image files of each case by their suffix: _0000, _0001 ..., or none


def read_dataset(
    layout: Literal["decathlon", "nnunet", "folder", "table"],
    root: Path,
    *,
    images: str = "images",
    labels: str = "labels",
    declared: dict[str, int] | None = None,
) -> Dataset:
    """Finds the cases of a dataset.

    A Decathlon file may hold several channels; such a dataset names more channels than a case has files.

    Args:
        layout: how it lies on disk (`data/README.md` draws each).
        root: its folder; for a table, the file or a folder that holds just one.
        images: name of the image folder, for `folder`.
        labels: name of the label folder, for `folder`.
        declared: label ids that replace the dataset's own, which are then not looked at.

    Raises:
        ConfigError: if `root` is not such a dataset, or `declared` cannot be the labels of one.
        DataError: if it is one, but not in order.
    """
    _check_root(layout, root)
    if layout == "folder":
        dataset = _folder(root, images, labels)
    elif layout == "table":
        dataset = read_table(root)
    else:
        dataset = {"decathlon": _decathlon, "nnunet": _nnunet}[layout](root, declared)
    _check_cases(root, dataset)
    if declared is None:
        return dataset
    return replace(dataset, labels=_background_first(declared, "data.labels", ConfigError))


def _check_root(layout: str, root: Path) -> None:
    if not root.exists():
        near = _closest(root.name, [path.name for path in _entries(root.parent)])
        raise ConfigError(f"data.root={root}: no such folder{near}")
    if layout != "table" and not root.is_dir():
        raise ConfigError(
            f"data.root={root}: is a file; data={layout} needs the folder, as in data.root={root.parent}"
        )
    if layout == "table" and root.is_dir() and not _tables(root) and (hint := _fits(root)):
        raise ConfigError(f"data.root={root}: holds no table, so it is not data=table{hint}")


def _decathlon(root: Path, declared: dict[str, int] | None) -> Dataset:
    file, facts = _facts(root, "decathlon", needs="modality")
    names = tuple(name for _, name in _numbered(file, facts, "modality", '{"0": "MRI", ...}'))
    train = _listed(file, facts, "training")
    if not train:
        raise DataError(f"{file}: 'training' lists no case; each is an object with image and label")
    own = _decathlon_labels(file, facts) if declared is None else None
    return Dataset(
        str(facts.get("name", root.name)), train, _listed(file, facts, "test"), own, names
    )


def _decathlon_labels(file: Path, facts: dict[str, Any]) -> dict[str, int]:
    pairs = _numbered(file, facts, "labels", '{"0": "background", ...}')
    labels = {name: number for number, name in pairs}
    if len(labels) < len(pairs):
        raise DataError(
            f"{file}: two labels share a name in {facts['labels']}; each needs one of its own"
        )
    return _background_first(labels, file)


def _listed(file: Path, facts: dict[str, Any], key: str) -> tuple[Case, ...]:
    entries = facts.get(key, [])
    if not isinstance(entries, list):
        raise DataError(f"{file}: '{key}' must be a list of cases, got {reprlib.repr(entries)}")
    cases = [_listed_case(file, key, entry) for entry in entries]
    check_files(file, cases)
    return tuple(sorted(cases, key=lambda case: case.name))


def _listed_case(file: Path, key: str, entry: object) -> Case:
    named = entry if isinstance(entry, dict) else {"image": entry}
    image, label = named.get("image"), named.get("label")
    if (
        not isinstance(image, str)
        or not isinstance(label, str | None)
        or (key == "training" and not label)
    ):
        needs = "an image and a label" if key == "training" else "an image"
        raise DataError(
            f"{file}: each case of '{key}' must name {needs}, got {reprlib.repr(entry)}"
        )
    path = file.parent / image
    beside = file.parent / "labelsTs" / path.name
    found = file.parent / label if label else beside
    return Case(stem(path), (path,), found if label or found.is_file() else None)


def _nnunet(root: Path, declared: dict[str, int] | None) -> Dataset:
    file, facts = _facts(root, "nnunet", needs="channel_names")
    ending = str(facts.get("file_ending") or ".nii.gz")
    names = tuple(name for _, name in _numbered(file, facts, "channel_names", '{"0": "T1", ...}'))
    train = _nnunet_cases(root, "Tr", ending, len(names))
    if not train:
        raise ConfigError(
            f"data.root={root}: no file matches imagesTr/*_0000{ending}{_instead(root / 'imagesTr')}"
        )
    check_files(file, train)
    known = {case.label for case in train}
    if left := [
        path
        for path in _entries(root / "labelsTr")
        if path.name.endswith(ending) and path not in known
    ]:
        raise DataError(
            f"{root / 'labelsTr'}: {len(left)} labels have no image in imagesTr, as {left[0].name}"
        )
    own = _nnunet_labels(file, facts) if declared is None else None
    return Dataset(
        str(facts.get("name", root.name)),
        train,
        _nnunet_cases(root, "Ts", ending, len(names)),
        own,
        names,
    )


def _nnunet_labels(file: Path, facts: dict[str, Any]) -> dict[str, int]:
    labels = facts.get("labels")
    for name, number in labels.items() if isinstance(labels, dict) else ():
        if isinstance(number, list) or name == "ignore":
            mend = (
                "give plain ids by data.labels={background:0,edema:1}, and regions by data.regions"
            )
            raise DataError(
                f"{file}: label {name}: {number}: regions and ignore labels are not read from here; {mend}"
            )
    pairs = _numbered(file, facts, "labels", '{"background": 0, ...}', number_first=False)
    return _background_first({name: number for number, name in pairs}, file)


def _nnunet_cases(root: Path, part: str, ending: str, channels: int) -> tuple[Case, ...]:
    folder, labels = root / f"images{part}", root / f"labels{part}"
    grouped: Channels = {}
    for path in _entries(folder):
        if match := re.fullmatch(rf"(.+)(_\d{{4}}){re.escape(ending)}", path.name):
            grouped.setdefault(match[1], {})[match[2]] = path
    if not ending.startswith(".nii") and all(
        list(files) == ["_0000"] for files in grouped.values()
    ):
        channels = 1  # nnU-Net names red, green and blue of a PNG that holds all three
    _check_channels(folder, grouped, channels)
    label_of = {name: labels / f"{name}{ending}" for name in grouped}
    return _cases(
        grouped, {name: path for name, path in label_of.items() if part == "Tr" or path.is_file()}
    )


def _folder(root: Path, images: str, labels: str) -> Dataset:
    for folder in (images, labels):
        if not (root / folder).is_dir():
            near = _closest(folder, [path.name for path in _entries(root) if path.is_dir()])
            raise ConfigError(f"data.root={root}: has no folder {folder}{near}{_fits(root)}")
    cases = _paired(root / images, root / labels)
    test_images, test_labels = root / "test" / images, root / "test" / labels
    test: tuple[Case, ...] = ()
    if test_labels.is_dir():
        test = _paired(test_images, test_labels)
    elif test_images.is_dir():
        test = _unlabelled(test_images, cases[0])
    return Dataset(root.name, cases, test, None, ("image",))


def _paired(images: Path, labels: Path) -> tuple[Case, ...]:
    """Images and labels of the same name; `_0000` channels and `_seg`, `_label`, `_mask` endings are understood."""
    image_of, label_of = _by_name(images), _by_name(labels)
    known = {LABEL_SUFFIX.sub("", name): path for name, path in label_of.items()} | label_of
    grouped = _grouped(image_of, known)
    if lonely := [
        path for name in grouped.keys() - known.keys() for path in grouped[name].values()
    ]:
        raise DataError(
            f"{images}: {len(lonely)} of {len(image_of)} images have no label of their name in {labels}, "
            f"as {min(lonely).name}{_closest(stem(min(lonely)), list(label_of))}"
        )
    if left := sorted(set(label_of.values()) - {known[name] for name in grouped}):
        raise DataError(
            f"{labels}: {len(left)} of {len(label_of)} labels have no image of their name in {images}, "
            f"as {left[0].name}{_closest(stem(left[0]), list(image_of))}"
        )
    _check_channels(images, grouped, max(map(len, grouped.values())))
    return _cases(grouped, known)


def _unlabelled(images: Path, like: Case) -> tuple[Case, ...]:
    # whether _0000 ends a channel's name or a case's can be seen only where there are labels
    image_of = _by_name(images)
    grouped = _grouped(image_of, image_of if stem(like.images[0]) == like.name else ())
    _check_channels(images, grouped, len(like.images))
    return _cases(grouped, {})


def _grouped(image_of: dict[str, Path], known: Container[str]) -> Channels:
    """The images of each case; a name that is not `known` as a case is taken for a channel of one."""
    grouped: Channels = {}
    for name, path in image_of.items():
        case = name if name in known else CHANNEL.sub("", name)
        grouped.setdefault(case, {})[name.removeprefix(case)] = path
    return grouped


def _cases(grouped: Channels, label_of: dict[str, Path]) -> tuple[Case, ...]:
    return tuple(
        Case(name, tuple(files[suffix] for suffix in sorted(files)), label_of.get(name))
        for name, files in sorted(grouped.items())
    )


def _check_channels(folder: Path, grouped: Channels, count: int) -> None:
    """Refuses a case that has not just as many channels; a single one needs no suffix."""
    wanted = [f"_{channel:04d}" for channel in range(count)]
    for name, files in grouped.items():
        if sorted(files) == wanted or (count == 1 and list(files) == [""]):
            continue
        lacking = ", ".join(suffix for suffix in wanted if suffix not in files)
        raise DataError(
            f"{folder}: case {name} {f'lacks {lacking}' if lacking else 'has too many channels'}: "
            f"here a case has {', '.join(wanted)}; found {', '.join(path.name for path in files.values())}"
        )


def _facts(root: Path, layout: str, needs: str) -> tuple[Path, dict[str, Any]]:
    file = root / "dataset.json"
    if not file.is_file():
        raise ConfigError(
            f"data.root={root}: has no dataset.json, so it is not data={layout}{_fits(root)}"
        )
    facts = read_json(file)
    if not isinstance(facts, dict) or needs not in facts:
        raise ConfigError(f"{file}: has no '{needs}', so it is not data={layout}{_fits(root)}")
    return file, facts


def _numbered(
    file: Path, facts: dict[str, Any], key: str, example: str, number_first: bool = True
) -> list[Numbered]:
    """An object of numbers and names as pairs, by number."""
    entry = facts.get(key)
    pairs = list(entry.items()) if isinstance(entry, dict) else []
    pairs = pairs if number_first else [(number, name) for name, number in pairs]
    if not pairs or not all(str(number).isdecimal() for number, _ in pairs):
        raise DataError(f"{file}: '{key}' must be as {example}, got {reprlib.repr(entry)}")
    return sorted((int(number), str(name)) for number, name in pairs)


def _background_first(
    labels: dict[str, int], source: object, kind: type[SegpipeError] = DataError
) -> dict[str, int]:
    if 0 not in labels.values() or len(set(labels.values())) < len(labels) or len(labels) < 2:
        raise kind(
            f"{source}: the labels {labels} must be a background of id 0 and others, each of an id of its own"
        )
    return dict(sorted(labels.items(), key=lambda item: item[1]))


def _check_cases(root: Path, dataset: Dataset) -> None:
    both = (*dataset.cases, *dataset.test)
    for what, values in (
        ("case name", [case.name for case in dataset.cases]),
        ("test case name", [case.name for case in dataset.test]),
        ("image", [str(path) for case in both for path in case.images]),
    ):
        value, count = Counter(values).most_common(1)[0] if values else ("", 0)
        if count > 1:
            raise DataError(
                f"{root}: the {what} {value} stands {count} times; each must stand once"
            )


def _by_name(folder: Path) -> dict[str, Path]:
    """The images of a folder by their name without the ending."""
    found: dict[str, Path] = {}
    for path in _entries(folder):
        name = stem(path)
        if name in found:
            raise DataError(
                f"{folder}: {found[name].name} and {path.name} have the same name, {name}; keep one"
            )
        if name != path.name:
            found[name] = path
    if not found:
        raise ConfigError(f"{folder}: no file matches *{', *'.join(ENDINGS)}{_instead(folder)}")
    return found


def _entries(folder: Path) -> list[Path]:
    # hidden ones are left out: archives made on a Mac hold a ._NAME beside each file
    return (
        sorted(path for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []
    )


def _tables(root: Path) -> list[Path]:
    tables = (".csv", ".tsv", ".json")
    return [
        path for path in _entries(root) if path.suffix in tables and path.name != "dataset.json"
    ]


def _instead(folder: Path) -> str:
    names = [path.name for path in _entries(folder)]
    found = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"; found {found}" if names else "; the folder is empty or missing"


def _closest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, 3, 0.4)
    return f"; closest: {', '.join(close)}" if close else ""


def _fits(root: Path) -> str:
    """Which layout a folder looks like."""
    file = root / "dataset.json"
    facts = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    looks = {
        "nnunet": '"channel_names"' in facts,
        "decathlon": '"modality"' in facts,
        "folder": (root / "images").is_dir() and (root / "labels").is_dir(),
        "table": bool(_tables(root)),
    }
    return next((f"; this looks like data={layout}" for layout, fits in looks.items() if fits), "")
