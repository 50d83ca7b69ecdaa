"""The colours of networks that are compared in one picture."""

from segpipe.reporting.pictures import COLOURS

ORDER = (4, 5, 2, 0, 6, 1, 3)  # of `COLOURS`; the ones with most contrast first


def network_colour(index: int) -> str:
    """Return the colour of a network, as `#RRGGBB`."""
    return COLOURS[ORDER[index % len(ORDER)]]
