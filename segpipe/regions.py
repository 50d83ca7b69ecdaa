"""Overlapping regions: unions of labels, nested from the outermost to the innermost, and how one mask shows them."""

from segpipe.errors import ConfigError


def index_regions(
    given: dict[str, list[int]] | None, labels: dict[str, int]
) -> dict[str, list[int]] | None:
    """Regions with ids inside.

    Raises:
        ConfigError: if one has an id that is no label, a label is in none, or a mask could not show them all.
    """
    if given is None:
        return None
    places = {number: place for place, number in enumerate(labels.values())}
    known = ", ".join(f"{number} {name}" for name, number in labels.items())
    for name, ids in given.items():
        if strange := [number for number in ids if number not in places or number == 0]:
            raise ConfigError(
                f"data.regions.{name} has the id {strange[0]}, but the labels to unite are {known}"
            )
    if left := [
        name
        for name, number in labels.items()
        if number and not any(number in ids for ids in given.values())
    ]:
        raise ConfigError(
            f"data.regions leaves out the label {left[0]}: put its id {labels[left[0]]} into a region"
        )
    for place, (name, ids) in enumerate(given.items()):
        own = sorted(set(ids).difference(*list(given.values())[place + 1 :]))
        if len(own) != 1:
            raise ConfigError(
                f"data.regions.{name} must have just one id that no region after it has, by which a mask shows it; "
                f"it has {own or 'none'}: order them from the outermost to the innermost"
            )
    return {name: sorted(places[number] for number in ids) for name, ids in given.items()}


def region_label(regions: dict[str, list[int]], name: str) -> int:
    """The id that stands for a region in a mask: the one that no later region has."""
    later = list(regions)[list(regions).index(name) + 1 :]
    (own,) = set(regions[name]).difference(*(regions[region] for region in later))
    return own
