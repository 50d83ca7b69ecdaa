"""Any tree of folders: patterns say where the images and the label map of a case lie."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from segpipe.config.data import Data
from segpipe.data.cases import Case, Dataset
from segpipe.data.layouts.base import (
    Layout,
    content_hint,
    list_folder,
    list_subfolders,
    root_folder,
    warn_of_incomplete,
)
from segpipe.errors import ConfigError, DataError
from segpipe.io.formats import ENDINGS, ending_of, stem
from segpipe.registry import LAYOUTS

CASE = "{case}"
EXAMPLE = "data.images='{case}/anat/T1.nii.gz' data.label='{case}/anat/seg.nii.gz'"
LABEL_NAME = re.compile(
    r"(^|[^a-z])(d?seg|segmentation|mask|msk|labels?|roi|truth|gt|lesion)", re.IGNORECASE
)
COMMON = 0.8  # share of the folders that have a file which stands for all
MOST_FOLDERS = 50  # that a suggestion is made of


@LAYOUTS.register("pattern", help="any tree: data.images and data.label say where files lie")
class Pattern(Layout):
    """Patterns of paths below `data.root`, in which `{case}` is the name of a case."""

    def is_meant(self, data: Data) -> bool:
        """Return whether patterns of images are given."""
        return data.images is not None

    def read(self, data: Data) -> Dataset:
        """Read the cases whose files match all patterns."""
        root = root_folder(data)
        if not data.images or not data.label:
            missing = "data.label" if data.images else "data.images"
            raise ConfigError(f"data=pattern needs {missing}, as in {EXAMPLE}{_hint(root)}")
        channels = [find_by_pattern("data.images", root, pattern) for pattern in data.images]
        labels = find_by_pattern("data.label", root, data.label)
        names = sorted(set(labels).union(*channels))
        cases = []
        incomplete = {}
        for name in names:
            missing = _missing(name, data, channels, labels)
            if missing:
                incomplete[name] = missing
                continue
            images = tuple(files[name] for files in channels)
            cases.append(Case(name, images, labels[name]))
        if not cases:
            raise DataError(
                f"{root}: no case matches all patterns, such as {names[0]}, which has no "
                f"{incomplete[names[0]]}"
            )
        warn_of_incomplete(root, incomplete, len(cases))
        return Dataset(root.name, tuple(cases), (), None, ("image",))


def _missing(
    name: str, data: Data, channels: list[dict[str, Path]], labels: dict[str, Path]
) -> str | None:
    """Return the pattern for which a case has no file; None where it has all."""
    for pattern, files in zip(data.images or [], channels, strict=True):
        if name not in files:
            return pattern
    return None if name in labels else data.label


def find_by_pattern(key: str, root: Path, pattern: str) -> dict[str, Path]:
    """Return case name -> file below a folder, of those that match a pattern.

    Raises:
        ConfigError: if it is no such pattern, or nothing matches it.
        DataError: if two files of a case match it.
    """
    pattern = _checked(key, pattern)
    expression, wildcards = _translated(pattern)
    found: dict[str, Path] = {}
    for path in sorted(root.glob(wildcards)):
        name = path.relative_to(root).as_posix()
        match = re.fullmatch(expression, name)
        if match is None or any(part.startswith(".") for part in name.split("/")):
            continue
        case = match["case"]
        if case in found:
            raise DataError(
                f"{key}={pattern}: {found[case]} and {path} both match for the case {case}; "
                "one must"
            )
        found[case] = path
    if not found:
        raise ConfigError(f"{key}={pattern}: matches nothing in {root}{content_hint(root)}")
    return found


def _checked(key: str, pattern: str) -> str:
    """Return a pattern with `/` between its parts.

    Raises:
        ConfigError: if it has no `{case}`, or leaves the folder.
    """
    path = PurePosixPath(pattern.replace("\\", "/"))
    unknown = re.sub(re.escape(CASE), "", pattern)
    if CASE not in pattern or "{" in unknown or "}" in unknown or "**" in pattern:
        raise ConfigError(
            f"{key}={pattern}: must hold {{case}}, and may hold * for any text within a name, as "
            f"in {EXAMPLE}"
        )
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", pattern):
        raise ConfigError(
            f"{key}={pattern}: must be relative to data.root and stay below it, as in {EXAMPLE}"
        )
    return path.as_posix()


def _translated(pattern: str) -> tuple[str, str]:
    """Return a pattern as a regular expression, and as wildcards that match the same or more."""
    expression = ""
    wildcards = ""
    for token in re.split(r"(\{case\}|\*)", pattern):
        if token == CASE:
            expression += "(?P=case)" if "?P<case>" in expression else "(?P<case>[^/]+)"
            wildcards += "*"
        elif token == "*":
            expression += "[^/]*"
            wildcards += "*"
        else:
            expression += re.escape(token)
            wildcards += glob.escape(token)
    return expression, re.sub(r"\*+", "*", wildcards)


def _hint(root: Path) -> str:
    patterns = suggested_patterns(root)
    if patterns is None:
        return ""
    return f"; here perhaps data.images='{patterns[0]}' data.label='{patterns[1]}'"


def suggested_patterns(root: Path) -> tuple[str, str] | None:
    """Return patterns of an image and of a label map that most folders of a tree have, if any."""
    folders = list_subfolders(root)[:MOST_FOLDERS]
    counts: Counter[str] = Counter()
    for folder in folders:
        for file in _files(folder):
            name = file.relative_to(root).as_posix()
            counts[name.replace(folder.name, CASE)] += 1
    common = [pattern for pattern in sorted(counts) if counts[pattern] >= COMMON * len(folders)]
    labels = []
    images = []
    for pattern in common:
        if LABEL_NAME.search(stem(Path(pattern))):
            labels.append(pattern)
        else:
            images.append(pattern)
    if len(folders) < 2 or not labels or not images:
        return None
    return images[0], labels[0]


def _files(folder: Path) -> Iterator[Path]:
    """Yield the scans of a folder and of its folders."""
    for path in list_folder(folder):
        inside = list_folder(path) if path.is_dir() else [path]
        for file in inside:
            if ending_of(file) in ENDINGS and os.path.isfile(file):
                yield file
