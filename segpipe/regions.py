"""Overlapping regions: unions of labels, and the id by which a single mask shows each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segpipe.errors import ConfigError
from segpipe.text import nearest

Ids = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class PaintedRegions:
    """Regions in the order in which a mask is painted, each over those before it.

    Attributes:
        regions: name -> label indices.
        paint: name -> the label index that stands for the region in a mask.
        labels: name -> id on disk; with an entry for each id that only masks hold.
    """

    regions: dict[str, list[int]]
    paint: dict[str, int]
    labels: dict[str, int]


def index_regions(
    given: dict[str, list[int]] | None,
    labels: dict[str, int],
    paint: dict[str, int] | None = None,
    ignore: int | None = None,
) -> PaintedRegions | None:
    """Return regions with label indices in place of ids on disk; None where there are none.

    A region paints the id that `paint` gives it. Without one it paints an id that it alone has, or
    shares with the fewest other regions, among those that no region painted after it has. Where
    there is no such id it paints the smallest id that is no label.

    Args:
        given: region name -> ids on disk. They are painted in this order where `paint` is given,
            else the largest unions first.
        labels: label name -> id on disk; the position in this order is the label index.
        paint: region name -> id on disk in masks.
        ignore: id on disk of voxels that nobody has annotated, which no region paints.

    Raises:
        ConfigError: if a region has an id that is no label, a label is in no region, or `paint`
            names what is no region.
    """
    if given is None:
        if paint is not None:
            raise ConfigError("data.paint says what regions paint, but there are no data.regions")
        return None
    _check_ids(given, labels)
    _check_all_labels_used(given, labels)
    _check_paint(given, paint or {}, ignore)
    names = list(given)
    if paint is None:
        names.sort(key=lambda name: -len(set(given[name])))
    ids = {name: sorted(set(given[name])) for name in names}
    painted = dict(labels)
    chosen: dict[str, int] = {}
    for name in names:
        number = (paint or {}).get(name) or _default_id(ids, name, {*painted.values(), ignore})
        chosen[name] = number
        if number not in painted.values():
            _add_label(painted, ids, name, number)
    return _indexed(ids, chosen, painted)


def _default_id(ids: Ids, name: str, taken: set[int | None]) -> int:
    """Return the id on disk that a region paints where none is given."""
    own = own_ids(ids, name)
    if not own:
        return next(number for number in range(1, len(taken) + 2) if number not in taken)

    def sharing(number: int) -> int:
        return sum(number in others for others in ids.values())

    return min(own, key=sharing)


def _add_label(labels: dict[str, int], ids: dict[str, list[int]], name: str, number: int) -> None:
    """Add an id that only masks hold: to the labels, to its region and to those around it."""
    labels[f"{name} only"] = number
    inside = set(ids[name])
    for other, numbers in ids.items():
        if inside <= set(numbers):
            ids[other] = sorted([*numbers, number])


def _indexed(ids: Ids, chosen: Mapping[str, int], labels: dict[str, int]) -> PaintedRegions:
    index_of = {number: index for index, number in enumerate(labels.values())}
    regions = {}
    for name, numbers in ids.items():
        regions[name] = sorted(index_of[number] for number in numbers)
    paint = {name: index_of[number] for name, number in chosen.items()}
    return PaintedRegions(regions, paint, labels)


def _check_ids(given: Ids, labels: dict[str, int]) -> None:
    """Check that every id of a region is that of a label other than the background."""
    for name, ids in given.items():
        if not ids:
            raise ConfigError(f"data.regions.{name} is empty: give it the ids of labels to unite")
        for number in ids:
            if number == 0 or number not in labels.values():
                known = ", ".join(f"{known_id} {label}" for label, known_id in labels.items())
                raise ConfigError(
                    f"data.regions.{name} has the id {number}, but the labels to unite are {known}"
                )


def _check_all_labels_used(given: Ids, labels: dict[str, int]) -> None:
    """Check that every label other than the background is in a region."""
    used = set().union(*given.values())
    for label, number in labels.items():
        if number and number not in used:
            raise ConfigError(
                f"data.regions leaves out the label {label}: put its id {number} into a region"
            )


def _check_paint(given: Ids, paint: Mapping[str, int], ignore: int | None) -> None:
    for name, number in paint.items():
        if name not in given:
            raise ConfigError(
                f"data.paint.{name}: there are the regions {', '.join(given)}."
                f"{nearest(name, list(given))}"
            )
        if number == ignore:
            raise ConfigError(f"data.paint.{name} is {number}, which is data.ignore_label")


def own_ids(regions: Ids, name: str) -> list[int]:
    """Return the ids of a region that no later region has, sorted."""
    names = list(regions)
    later = names[names.index(name) + 1 :]
    ids = set(regions[name])
    for other in later:
        ids.difference_update(regions[other])
    return sorted(ids)


def painted_ids(regions: Ids, paint: Mapping[str, int] | None) -> list[int]:
    """Return the label index that each region paints over those before it.

    Args:
        regions: name -> label indices.
        paint: name -> label index; None in plans of before there was a choice, in which each region
            has just one index that no later one has.
    """
    if paint is not None:
        return [paint[name] for name in regions]
    return [own_ids(regions, name)[0] for name in regions]


def misshown(regions: Ids, paint: Mapping[str, int]) -> dict[int, int]:
    """Return the label indices that a mask shows as a label of other regions, by that label.

    Where there are none, the regions of a truth are the same after it was painted as a mask.
    """
    wrong: dict[int, int] = {}
    for index in sorted(set().union(*regions.values())):
        shown = 0
        for name, indices in regions.items():
            if index in indices:
                shown = paint[name]
        for indices in regions.values():
            if (index in indices) != (shown in indices):
                wrong[index] = shown
    return wrong
