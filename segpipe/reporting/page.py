"""Pages that open anywhere: one HTML file with its pictures inside, which asks the network for nothing.

A page is a frozen dataclass, made from `Page`, and a template in `templates/` that shows it; the template extends
`base.html` and takes tables, pictures and facts from `parts.html`.
"""

import base64
import io
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from segpipe.files import write_text
from segpipe.terminal import progress_bar

NOT_KNOWN = "—"
QUALITY = (
    80  # of WebP: a tenth of a PNG's bytes, and no difference that one sees at the size of a page
)


@dataclass(frozen=True)
class Page:
    """What every page has; each kind of page adds what its template shows.

    Attributes:
        title: of the page, in the browser's tab too.
        lead: a line below it.
    """

    title: str
    lead: str


@dataclass(frozen=True)
class Picture:
    """A picture inside a page.

    Attributes:
        source: `data:` address.
        alt: what it shows, for those who do not see it.
        width: in pixels.
        height: likewise.
        caption: stands below it.
    """

    source: str
    alt: str
    width: int
    height: int
    caption: str = ""


@dataclass(frozen=True)
class Link:
    """A link to a file beside the page, or to a place in it.

    Attributes:
        text: what it says.
        to: the file's path from the page's folder, or `#` and a place.
    """

    text: str
    to: str


Cell = str | int | float | Link | Picture | None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its head; with a unit where it has one.
        digits: behind the point, of numbers; None for a column of text.
        sortable: whether its order means something; that of pictures does not.
    """

    name: str
    digits: int | None = None
    sortable: bool = True


@dataclass(frozen=True)
class Sorted:
    """The order in which a table's rows stand when the page opens.

    Attributes:
        column: place of the column by which they are sorted.
        order: from its lowest to its highest, or the other way.
    """

    column: int
    order: Literal["ascending", "descending"] = "ascending"


@dataclass(frozen=True)
class Table:
    """A table that its reader can sort by any column.

    Attributes:
        caption: stands above it.
        columns: from left to right; the first names the row.
        rows: a cell for each column; None and NaN are shown as a dash, and sorted behind all others.
        sorted: the order of the rows, where they have one.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    sorted: Sorted | None = None


def embed(picture: Path, alt: str, width: int, caption: str = "") -> Picture:
    """A picture file as it stands inside a page.

    Args:
        picture: any image that Pillow reads.
        alt: what it shows.
        width: most pixels that it may be wide; a wider one is made smaller.
        caption: stands below it.
    """
    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    if image.width > width:
        image = image.resize(
            (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS
        )
    content = io.BytesIO()
    image.save(content, format="WEBP", quality=QUALITY, method=4)
    return Picture(
        data_address("image/webp", content.getvalue()), alt, image.width, image.height, caption
    )


def embed_all(
    pictures: Mapping[str, Path], alt: str, width: int, limit_mib: float
) -> dict[str, Picture]:
    """Picture files as they stand inside a page, in their order, until there is no room; missing files are left out.

    Args:
        pictures: by name.
        alt: what they show; the name stands before it.
        width: most pixels that one may be wide.
        limit_mib: what they may take together; the last one may go beyond it.
    """
    found: dict[str, Picture] = {}
    room = limit_mib * 2**20
    with progress_bar() as bar:
        embedding = bar.add_task("writing the page", total=len(pictures), note="")
        for name, file in pictures.items():
            if room > 0 and file.is_file():
                found[name] = embed(file, f"{name}: {alt}", width)
                room -= len(found[name].source)
            bar.advance(embedding)
    return found


def data_address(kind: str, content: bytes) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def write_page(path: Path, template: str, page: Page) -> None:
    """Writes a page, whole or not at all.

    Args:
        path: HTML file to write.
        template: its name in `templates/`.
        page: what the template shows under the name `page`.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    # only what has this page's own number may run: no name of a case can become a script
    text = _templates().get_template(template).render(page=page, nonce=secrets.token_hex(8))
    write_text(path, text)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("segpipe.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = _shown
    environment.filters["key"] = _key
    return environment


def _shown(cell: str | int | float | None, column: Column) -> str:
    """A cell that is neither a link nor a picture, as it is read."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return NOT_KNOWN
    return cell if isinstance(cell, str) else f"{cell:.{column.digits or 0}f}"


def _key(cell: Cell) -> str:
    """What a cell is sorted by; nothing where it is not known."""
    match cell:
        case Link():
            return cell.text
        case Picture() | None:
            return ""
        case float() | int():
            return "" if math.isnan(cell) else repr(cell)
    return cell
