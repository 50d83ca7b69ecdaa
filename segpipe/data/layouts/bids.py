"""The Brain Imaging Data Structure (Gorgolewski 2016): a folder per participant and session."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from segpipe.config.data import Data
from segpipe.data.cases import Case, Dataset
from segpipe.data.layouts.base import (
    Layout,
    layout_hint,
    list_folder,
    list_subfolders,
    root_folder,
    warn_of_incomplete,
)
from segpipe.data.layouts.bids_names import names_of
from segpipe.errors import ConfigError, DataError
from segpipe.io.formats import ending_of, stem
from segpipe.registry import LAYOUTS

log = logging.getLogger("segpipe")
LABEL = re.compile(
    r"(^|_)(label-[^_]+.*|dseg|mask|msk|d?seg|segmentation|labels?|roi|lesion)$", re.IGNORECASE
)
NAMED = 5  # files or endings that a message names at most


@dataclass
class Session:
    """What there is of a participant, or of one of its sessions.

    Attributes:
        participant: `sub-01`.
        name: `sub-01`, or `sub-01_ses-1`.
        images: the images of `anat`, or where there is none, of all its folders.
        others: images of other folders.
        labels: label maps, beside the images or in derivatives.
    """

    participant: str
    name: str
    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    labels: list[Path] = field(default_factory=list)


@LAYOUTS.register("bids", help="BIDS: sub-*/[ses-*/]anat, label maps in derivatives")
class Bids(Layout):
    """Folders `sub-*`, and in them `ses-*`; all sessions of a participant are one group."""

    signs = ("sub-*",)

    def looks_like(self, root: Path) -> bool:
        """Return whether there are folders `sub-*`."""
        return bool(_subfolders(root, "sub-"))

    def read(self, data: Data) -> Dataset:
        """Read the sessions that have a label map and each image."""
        root = root_folder(data)
        sessions = _sessions(root)
        if not sessions:
            raise ConfigError(f"data.root={root}: has no folder sub-*{layout_hint(root)}")
        labels = {session.name: _labels_of(session, root, data.label) for session in sessions}
        labelled = [session for session in sessions if labels[session.name]]
        if not labelled:
            raise DataError(f"{root}: no session has a label map{_label_hint(sessions, data)}")
        suffixes = data.suffixes or _common_suffixes(root, labelled)
        cases, incomplete = _cases(sessions, labels, root, suffixes)
        if not cases:
            found = ", ".join(sorted(_suffixes(labelled[0])))
            raise DataError(
                f"{root}: no labelled session has the images {', '.join(suffixes)}, such as "
                f"{labelled[0].name}, which has {found or 'none'}"
            )
        warn_of_incomplete(root, incomplete, len(cases))
        log.info("%s: images are %s", root, ", ".join(suffixes))
        label_maps = [case.label for case in cases if case.label is not None]
        return Dataset(
            name=root.name,
            cases=tuple(cases),
            test=(),
            labels=None,
            channels=tuple(suffixes),
            names=names_of(label_maps, root),
        )


def _sessions(root: Path) -> list[Session]:
    """Return the sessions of all participants by name, with the label maps of derivatives."""
    found: dict[str, Session] = {}
    for participant in _subfolders(root, "sub-"):
        for folder in _subfolders(participant, "ses-") or [participant]:
            name = participant.name if folder is participant else _name(participant, folder)
            found[name] = Session(participant.name, name)
            _fill(found[name], folder)
    for path in sorted((root / "derivatives").rglob("*")):
        session = _session_of(path.relative_to(root / "derivatives"), found)
        if session is not None and ending_of(path) and LABEL.search(stem(path)):
            session.labels.append(path)
    return [found[name] for name in sorted(found)]


def _cases(
    sessions: Sequence[Session], labels: Mapping[str, list[Path]], root: Path, suffixes: list[str]
) -> tuple[list[Case], dict[str, str]]:
    """Return the cases, and the name of each session that is none with what it lacks.

    Args:
        sessions: of all participants.
        labels: name of a session -> its label map, in a list that is empty where it has none.
        root: the folder of the dataset.
        suffixes: of the images that a case has.
    """
    cases: list[Case] = []
    incomplete: dict[str, str] = {}
    for session in sessions:
        found = labels[session.name]
        images = [_image_of(session, root, suffix) for suffix in suffixes]
        if not found or None in images:
            incomplete[session.name] = "label map" if not found else "image of each suffix"
            continue
        files = tuple(filter(None, images))
        cases.append(Case(session.name, files, found[0], group=session.participant))
    return cases, incomplete


def _name(participant: Path, session: Path) -> str:
    return f"{participant.name}_{session.name}"


def _subfolders(folder: Path, prefix: str) -> list[Path]:
    """Return the folders in a folder whose names begin with a prefix, sorted."""
    return [path for path in list_subfolders(folder) if path.name.startswith(prefix)]


def _fill(session: Session, folder: Path) -> None:
    """Add the files of a session's folder and of the folders in it."""
    has_anat = (folder / "anat").is_dir()
    for inner in [folder, *list_subfolders(folder)]:
        for path in list_folder(inner):
            if not ending_of(path):
                continue
            if LABEL.search(stem(path)):
                session.labels.append(path)
            elif has_anat and inner.name != "anat":
                session.others.append(path)
            else:
                session.images.append(path)


def _session_of(path: Path, sessions: dict[str, Session]) -> Session | None:
    """Return the session that a file of a derivative belongs to, by its folders."""
    if any(part.startswith(".") for part in path.parts):
        return None
    participant = _first_folder(path, "sub-")
    session = _first_folder(path, "ses-")
    if participant is None:
        return None
    return sessions.get(f"{participant}_{session}" if session else participant)


def _first_folder(path: Path, prefix: str) -> str | None:
    """Return the first folder of a file's path whose name begins with a prefix, if any."""
    for name in path.parent.parts:
        if name.startswith(prefix):
            return name
    return None


def _ending_in(ending: str, paths: Iterable[Path], root: Path) -> list[Path]:
    """Return the files whose path, without the format's ending, ends as an option says."""
    found = []
    for path in paths:
        text = (path.relative_to(root).parent / stem(path)).as_posix()
        if fnmatchcase(text, f"*[_/]{ending}") or fnmatchcase(text, ending):
            found.append(path)
    return found


def _labels_of(session: Session, root: Path, ending: str | None) -> list[Path]:
    """Return the label map of a session, in a list that is empty where it has none.

    Raises:
        DataError: if it has several.
    """
    labels = session.labels
    if ending is not None:
        candidates = [*session.labels, *session.images, *session.others]
        labels = _ending_in(ending, candidates, root)
    if len(labels) > 1:
        names = ", ".join(str(path.relative_to(root)) for path in labels[:NAMED])
        raise DataError(
            f"{root}: {session.name} has {len(labels)} label maps: {names}; choose by how the path "
            f"ends, as in data.label={_ending(labels[0])}"
        )
    return labels


def _ending(path: Path) -> str:
    """Return a name without its format's ending, participant and session."""
    parts = stem(path).split("_")
    kept = [part for part in parts if not part.startswith(("sub-", "ses-"))]
    return "_".join(kept)


def _label_hint(sessions: Sequence[Session], data: Data) -> str:
    endings = set()
    for session in sessions:
        endings.update(map(_ending, session.labels))
    known = ", ".join(sorted(endings)[:NAMED])
    wanted = data.label or "dseg, mask or label-*"
    found = f"; there are {known}: choose one by data.label" if known else "; give data.label=..."
    return f" whose name ends in {wanted}, beside the images or in derivatives/{found}"


def _suffixes(session: Session) -> set[str]:
    return {stem(path).split("_")[-1] for path in session.images}


def _common_suffixes(root: Path, labelled: Sequence[Session]) -> list[str]:
    """Return the suffixes of the images that all labelled sessions have.

    Raises:
        DataError: if there are none.
    """
    common = set.intersection(*map(_suffixes, labelled))
    if not common:
        found = sorted(set.union(*map(_suffixes, labelled)))
        raise DataError(
            f"{root}: the labelled sessions have no image in common; found "
            f"{', '.join(found[:NAMED]) or 'none'}: choose by data.suffixes=[T1w]"
        )
    return sorted(common)


def _image_of(session: Session, root: Path, suffix: str) -> Path | None:
    """Return the image of a session whose name ends in a suffix; None where there is none.

    Raises:
        DataError: if there are several.
    """
    images = _ending_in(suffix, session.images, root)
    if not images:
        images = _ending_in(suffix, session.others, root)
    if len(images) > 1:
        names = ", ".join(path.name for path in images[:NAMED])
        raise DataError(
            f"{root}: {session.name} has {len(images)} images {suffix}: {names}; choose by how the "
            f"name ends, as in data.suffixes=[{_ending(images[0])}]"
        )
    return images[0] if images else None
