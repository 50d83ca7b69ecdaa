"""The interface of a layout, and the checks and hints that all readers share."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from segpipe.config.data import Data
from segpipe.data.cases import Dataset
from segpipe.errors import ConfigError, DataError
from segpipe.registry import LAYOUTS
from segpipe.text import closest, count

log = logging.getLogger("segpipe")
LISTED = 3  # files that a message names before it only counts them


class Layout(ABC):
    """A way in which a dataset lies on disk.

    A layout is registered by `@LAYOUTS.register(name, help=...)` and made without arguments.

    Attributes:
        signs: names of files and folders in its root by which a reader knows it; for messages.
    """

    signs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def read(self, data: Data) -> Dataset:
        """Find the cases of a dataset without opening its images.

        Args:
            data: the options of the dataset; `data.labels`, where given, replaces the labels that
                the dataset declares, which are then not checked.

        Raises:
            ConfigError: if `data.root` is not a dataset of this layout.
            DataError: if it is one, but its files are inconsistent.
        """

    def looks_like(self, root: Path) -> bool:
        """Return whether a folder looks like a dataset of this layout.

        It is used for hints, and to take `data.root` without `data=`.
        """
        return False

    def is_meant(self, data: Data) -> bool:
        """Return whether options or a file are given that only this layout has."""
        return False


def existing_root(data: Data) -> Path:
    """Return `data.root`.

    Raises:
        ConfigError: if it does not exist; the message names similar folders.
    """
    root = data.root
    assert root is not None
    if not root.exists():
        hint = closest_hint(root.name, list_names(root.parent))
        raise ConfigError(f"data.root={root}: no such folder{hint}")
    return root


def root_folder(data: Data) -> Path:
    """Return `data.root`, which must be a folder.

    Raises:
        ConfigError: if it does not exist, or is a file.
    """
    root = existing_root(data)
    if not root.is_dir():
        raise ConfigError(
            f"data.root={root}: is a file; data={data.layout} needs the folder, as in "
            f"data.root={root.parent}"
        )
    return root


def list_folder(folder: Path) -> list[Path]:
    """Return the visible contents of a folder, sorted; none where there is no such folder.

    Hidden files are left out: archives made on a Mac hold a `._NAME` beside each file.
    """
    if not folder.is_dir():
        return []
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None


def list_subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, sorted."""
    return list(filter(Path.is_dir, list_folder(folder)))


def list_names(folder: Path) -> list[str]:
    """Return the names of the visible contents of a folder, sorted."""
    return [path.name for path in list_folder(folder)]


def content_hint(folder: Path) -> str:
    """Return what a folder holds, to end a message with: `; found a.txt, b.txt`."""
    names = list_names(folder)
    if not names:
        return "; the folder is empty or missing"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"; found {', '.join(names[:LISTED])}{more}"


def closest_hint(name: str, names: Sequence[str]) -> str:
    """Return the names most similar to `name`, to end a message with; empty if there are none."""
    similar = closest(name, names)
    return f"; closest: {', '.join(similar)}" if similar else ""


def layout_hint(root: Path) -> str:
    """Return which layout a folder looks like, to end a message with; empty if like none."""
    for name in LAYOUTS:
        layout: Layout = LAYOUTS[name]()
        if layout.looks_like(root):
            return f"; this looks like {layout_choice(name)}"
    return ""


def layout_choice(name: str) -> str:
    """Return what a user types to choose a layout."""
    # one that an extension has added has no file in conf/data/
    return f"{'data.layout' if name in LAYOUTS.added else 'data'}={name}"


def warn_of_incomplete(root: Path, incomplete: Mapping[str, str], complete: int) -> None:
    """Log which cases are passed over.

    Args:
        root: the root of the dataset.
        incomplete: case name -> what it lacks.
        complete: number of cases that lack nothing.
    """
    if incomplete:
        first = list(incomplete)[:LISTED]
        named = ", ".join(f"{name} (no {incomplete[name]})" for name in first)
        more = f" and {len(incomplete) - LISTED} more" if len(incomplete) > LISTED else ""
        total = complete + len(incomplete)
        log.warning(
            "%s: passed over %d of %s: %s%s",
            root,
            len(incomplete),
            count(total, "case"),
            named,
            more,
        )
