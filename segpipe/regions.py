"""Overlapping regions: unions of labels, outermost first, that a single mask can show."""

from collections.abc import Mapping, Sequence

from segpipe.errors import ConfigError


def index_regions(
    given: dict[str, list[int]] | None, labels: dict[str, int]
) -> dict[str, list[int]] | None:
    """Return regions with label indices in place of ids on disk; None where there are none.

    Args:
        given: region name -> ids on disk, outermost first.
        labels: label name -> id on disk; the position in this order is the label index.

    Raises:
        ConfigError: if a region has an id that is no label, a label is in no region, or a mask
            could not show all regions.
    """
    if given is None:
        return None
    _check_ids(given, labels)
    _check_all_labels_used(given, labels)
    for name in given:
        ids = _own_ids(given, name)
        if len(ids) != 1:
            raise ConfigError(
                f"data.regions.{name} must have just one id that no region after it has, by which "
                f"a mask shows it; it has {ids or 'none'}: order them from the outermost to the "
                "innermost"
            )
    index_of = {number: index for index, number in enumerate(labels.values())}
    regions = {}
    for name, ids in given.items():
        regions[name] = sorted(index_of[number] for number in ids)
    return regions


def _check_ids(given: Mapping[str, Sequence[int]], labels: dict[str, int]) -> None:
    """Check that every id of a region is that of a label other than the background."""
    for name, ids in given.items():
        for number in ids:
            if number == 0 or number not in labels.values():
                known = ", ".join(f"{known_id} {label}" for label, known_id in labels.items())
                raise ConfigError(
                    f"data.regions.{name} has the id {number}, but the labels to unite are {known}"
                )


def _check_all_labels_used(given: Mapping[str, Sequence[int]], labels: dict[str, int]) -> None:
    """Check that every label other than the background is in a region."""
    used = set().union(*given.values())
    for label, number in labels.items():
        if number and number not in used:
            raise ConfigError(
                f"data.regions leaves out the label {label}: put its id {number} into a region"
            )


def _own_ids(regions: Mapping[str, Sequence[int]], name: str) -> list[int]:
    """Return the ids of a region that no later region has."""
    names = list(regions)
    later = names[names.index(name) + 1 :]
    ids = set(regions[name])
    for other in later:
        ids.difference_update(regions[other])
    return sorted(ids)


def region_label(regions: dict[str, list[int]], name: str) -> int:
    """Return the id that stands for a region in a mask: the one that no later region has."""
    (label,) = _own_ids(regions, name)
    return label
