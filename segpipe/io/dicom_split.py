"""Which frames of a folder form one volume: by series, plane and what tells images apart."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain

import numpy as np

from segpipe.errors import DataError
from segpipe.io.dicom_frames import Frame, Header
from segpipe.io.dicom_pixels import digest
from segpipe.io.dicom_stacks import Stack, place_of
from segpipe.io.dicom_tags import TRAITS

BY_ORDER = "image"  # of volumes that nothing but the order of their images tells apart
SAME_DIRECTION = 1e-3  # between components of unit vectors
Traits = tuple[tuple[str, object], ...]
Part = tuple[list[Frame], Traits]


def split(headers: Iterable[Header]) -> list[Stack]:
    """Sort the frames of files into stacks, of which each has one image at a position.

    A frame that no tag tells from another one at its position stays in one stack with it, which is
    refused when it is read.
    """
    groups: dict[Hashable, list[Frame]] = {}
    for header in headers:
        for frame in header.frames:
            groups.setdefault(_group(frame), []).append(frame)
    stacks = []
    for group in groups.values():
        for plane in _planes(group):
            stacks.extend(_stacks(plane))
    return stacks


def _group(frame: Frame) -> Hashable:
    """Return what frames of one stack have in common, apart from their orientation."""
    header = frame.header
    spacing = frame.spacing and tuple(np.round(frame.spacing, 4).tolist())
    alone = ""
    if not frame.placed and not header.sectional:
        alone = str(header.path)  # a radiograph, a photograph: an image of its own
    return (header.series, header.kind, header.size, header.samples, spacing, frame.stack, alone)


def _planes(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Return the frames of each orientation; those without a place stay with the first."""
    planes: list[list[Frame]] = []
    for frame in sorted(frames, key=lambda frame: not frame.placed):
        for plane in planes:
            if not frame.placed or _is_parallel(frame, plane[0]):
                plane.append(frame)
                break
        else:
            planes.append([frame])
    return planes


def _is_parallel(frame: Frame, other: Frame) -> bool:
    return bool(np.abs(frame.rows - other.rows).max() <= SAME_DIRECTION)


def _stacks(plane: list[Frame]) -> list[Stack]:
    """Return the stacks of parallel frames."""
    if any(not frame.placed for frame in plane):
        return [Stack(tuple(plane))]
    normal = plane[0].normal
    known, copies = _without_copies(plane, _shot)
    parts = _split(known)
    if any(map(_is_ambiguous, parts)):
        # no tag tells the images at one position apart: some may be copies with other numbers
        known, more = _without_copies(known, lambda _: 0)
        for original, others in more.items():
            of_others = chain.from_iterable(copies.get(other, ()) for other in others)
            copies[original] = [*copies.get(original, ()), *others, *of_others]
        parts = _split(known)
    stacks = []
    for part, traits in parts:
        part.sort(key=lambda frame: (float(np.dot(place_of(frame), normal)), _order(frame)))
        part_copies = chain.from_iterable(copies.get(frame, ()) for frame in part)
        twins = [copy.path for copy in part_copies]
        stacks.append(Stack(tuple(part), traits, tuple(twins)))
    return stacks


def _is_ambiguous(part: Part) -> bool:
    """Return whether frames were split by their order alone, or not at all where they should."""
    frames, traits = part
    by_order = bool(traits) and traits[-1][0] == BY_ORDER
    return by_order or len(_by(frames, place_of)) < len(frames)


def _order(frame: Frame) -> tuple[int, str, int]:
    return frame.header.instance, frame.path.name, frame.index


def _by(frames: Iterable[Frame], key: Callable[[Frame], Hashable]) -> dict[Hashable, list[Frame]]:
    """Return the frames of each key, in their order."""
    parts: dict[Hashable, list[Frame]] = {}
    for frame in frames:
        parts.setdefault(key(frame), []).append(frame)
    return parts


def _shot(frame: Frame) -> Hashable:
    """Return what a file and its copy say alike."""
    return frame.header.instance, frame.index, tuple(frame.traits.items())


def _without_copies(
    frames: Iterable[Frame], alike: Callable[[Frame], Hashable]
) -> tuple[list[Frame], dict[Frame, list[Frame]]]:
    """Separate frames that have the values of another one at their place.

    Args:
        frames: parallel ones.
        alike: what a copy must share with its original for the pixels to be compared.

    Returns:
        The frames that are kept, and the copies of each of them.
    """
    kept: list[Frame] = []
    copies: dict[Frame, list[Frame]] = {}
    for group in _by(frames, lambda frame: (place_of(frame), alike(frame))).values():
        if len(group) == 1:
            kept.extend(group)
            continue
        for original, *others in _by(group, _content).values():
            kept.append(original)
            copies[original] = others
    return kept, copies


def _content(frame: Frame) -> Hashable:
    try:
        return digest(frame)
    except DataError:
        return frame  # it is like no other, and refused when it is read


def _split(frames: list[Frame]) -> list[Part]:
    """Split frames by what tells those at one position apart.

    A tag is taken if each of its values has an image at every position, or a run of neighbours;
    one that differs from slice to slice, as times do, would tear volumes apart.
    """
    places = _by(frames, place_of)
    most = max(map(len, places.values()))
    if most == 1:
        return [(frames, ())]
    for name in ("file", *TRAITS):
        parts = _by(frames, lambda frame, name=name: _trait(frame, name))
        if len(parts) > 1 and _are_volumes(list(parts.values()), frames, most):
            found: list[Part] = []
            for value, part in parts.items():
                for half, traits in _split(part):
                    found.append((half, ((name, value), *traits)))
            return found
    return _by_order(frames, most)


def _trait(frame: Frame, name: str) -> Hashable:
    """Return the value of a tag; the file is one where a file holds several frames."""
    if name == "file":
        return frame.path.name if frame.header.count > 1 else ""
    return frame.traits.get(name, "")


def _are_volumes(parts: list[list[Frame]], frames: Sequence[Frame], most: int) -> bool:
    """Return whether parts of a group could each be one volume, or several."""
    places = sorted(set(map(place_of, frames)), key=lambda place: np.dot(place, frames[0].normal))
    if _is_even(frames):
        return all(_is_even(part) and len(_by(part, place_of)) == len(places) for part in parts)
    if len(parts) <= most:
        return True
    for part in parts:
        ranks = sorted(map(places.index, set(map(place_of, part))))
        if len(ranks) < 2 or ranks[-1] - ranks[0] >= len(ranks):
            return False
    return True


def _is_even(frames: Iterable[Frame]) -> bool:
    """Return whether all positions have the same number of images."""
    return len(set(map(len, _by(frames, place_of).values()))) == 1


def _by_order(frames: list[Frame], most: int) -> list[Part]:
    """Split frames by the order in which they came; the first at every position are one volume."""
    if not _is_even(frames):
        return [(frames, ())]
    parts: list[list[Frame]] = [[] for _ in range(most)]
    for images in _by(frames, place_of).values():
        for part, frame in zip(parts, sorted(images, key=_order), strict=True):
            part.append(frame)
    found: list[Part] = []
    for number, part in enumerate(parts, 1):
        found.append((part, ((BY_ORDER, f"{number} of {most}"),)))
    return found
