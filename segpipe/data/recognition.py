"""The layout of a dataset that `data.root` alone names."""

import logging
from collections.abc import Iterable
from pathlib import Path

from segpipe.config.data import Data
from segpipe.data.layouts.base import Layout, layout_choice, list_names
from segpipe.data.layouts.dataset_json import mentions
from segpipe.data.layouts.pattern import suggested_patterns
from segpipe.data.tables import TABLES
from segpipe.errors import ConfigError
from segpipe.registry import LAYOUTS
from segpipe.text import closest

log = logging.getLogger("segpipe")
SHOWN = 4  # names of a folder's content that a message shows


def recognised(data: Data) -> Data:
    """Return the options of a dataset with the layout that its folder has.

    Without `data=` the layout is that of the phantom. Where `data.root` then holds something else,
    its layout is looked for.

    Raises:
        ConfigError: if it has none of the layouts, or might have several.
    """
    root = data.root
    if data.layout != "phantom" or root is None or _is_free(root) or mentions(root, "phantom"):
        return data
    layout = _layout_of(data, root)
    log.info("%s is taken for %s, since no data= is given", root, layout_choice(layout))
    values = data.model_dump(exclude={"phantom"})
    return Data.model_validate(values | {"layout": layout})


def _is_free(root: Path) -> bool:
    """Return whether a phantom can be written there: nothing, or an empty folder."""
    return not root.exists() or (root.is_dir() and not any(root.iterdir()))


def _layout_of(data: Data, root: Path) -> str:
    layouts: dict[str, Layout] = {name: LAYOUTS[name]() for name in LAYOUTS}
    for name, layout in layouts.items():
        if layout.is_meant(data):
            return name
    if root.is_file():
        raise ConfigError(
            f"data.root={root}: is a file, but no table ({', '.join(TABLES)}); name the folder of "
            f"the dataset, as data.root={root.parent}"
        )
    found = [name for name, layout in layouts.items() if layout.looks_like(root)]
    if len(found) > 1 and "table" in found:
        found.remove("table")  # tables lie beside datasets of every layout
    if len(found) == 1:
        return found[0]
    if found:
        choices = " or ".join(map(layout_choice, found))
        raise ConfigError(f"data.root={root}: might be several layouts; choose {choices}")
    raise ConfigError(f"data.root={root}: {_unknown(root, layouts.values())}")


def _unknown(root: Path, layouts: Iterable[Layout]) -> str:
    """Return a message's end: what was looked for, what is there, and what is nearest."""
    signs: dict[str, None] = {}
    for layout in layouts:
        signs |= dict.fromkeys(layout.signs)
    looked_for = ", ".join(signs)
    names = list_names(root)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    found = ", ".join(names[:SHOWN])
    text = f"is no dataset that is recognised: looked for {looked_for}; found {found}{more}"
    patterns = suggested_patterns(root)
    if patterns is not None:
        images, label = patterns
        return f"{text}; nearest: data=pattern data.images='{images}' data.label='{label}'"
    near = [name for name in names if closest(name, list(signs), 0.6)]
    if near:
        return (
            f"{text}; nearest: {', '.join(near[:SHOWN])}, as by data=folder data.image_folder=... "
            "data.label_folder=..."
        )
    return f"{text}; describe it by data=pattern data.images=... data.label=..., or by a table"
