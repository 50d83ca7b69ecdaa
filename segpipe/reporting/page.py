"""Pages of one HTML file, with all pictures inside and no request to the network.

A page is a frozen dataclass derived from `Page`, and a template in `templates/` that renders it.
The template extends `base.html` and takes tables, pictures and facts from `parts.html`.
"""

import base64
import io
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from segpipe.files import write_text
from segpipe.terminal import progress_bar
from segpipe.text import NOT_KNOWN, decimal, visible_lines

WEBP_QUALITY = 80  # a tenth of the size of a PNG, without a visible difference


@dataclass(frozen=True)
class Page:
    """The fields of every page; each kind of page adds those that its template shows.

    Attributes:
        title: heading, also shown in the browser's tab.
        lead: line below the heading.
    """

    title: str
    lead: str


@dataclass(frozen=True)
class Picture:
    """A picture inside a page.

    Attributes:
        source: `data:` address.
        alt: description, for people who cannot see it.
        width: pixels.
        height: pixels.
        caption: text below it.
        is_chart: whether it is drawn on white, and turned dark with the page.
        case: whose picture it is, which a click shows in the viewer where that holds it.
    """

    source: str
    alt: str
    width: int
    height: int
    caption: str = ""
    is_chart: bool = True
    case: str = ""


@dataclass(frozen=True)
class Link:
    """A link to a file beside the page, or to a section of the page.

    Attributes:
        text: that is shown.
        to: path relative to the page's folder, or `#` and the id of a section.
    """

    text: str
    to: str


@dataclass(frozen=True)
class Value:
    """A number that is shown with more than its decimals.

    Attributes:
        number: by which rows are sorted.
        text: that is shown, as a mean with its interval.
    """

    number: float
    text: str


Cell = str | int | float | Value | Link | Picture | None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: heading, with a unit where it has one.
        digits: after the decimal point; None for a column of text.
        sortable: whether rows can be sorted by it; a column of pictures cannot.
    """

    name: str
    digits: int | None = None
    sortable: bool = True


@dataclass(frozen=True)
class Sorted:
    """The order of a table's rows when the page opens.

    Attributes:
        column: index of the column by which they are sorted.
        order: direction.
    """

    column: int
    order: Literal["ascending", "descending"] = "ascending"


@dataclass(frozen=True)
class Table:
    """A table that readers can sort by any column.

    Attributes:
        caption: text above it.
        columns: from left to right; the first names the row.
        rows: a cell for each column; None and NaN are shown as a dash and sorted last.
        sorted: order of the rows, where they have one.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    sorted: Sorted | None = None


def embed(picture: Path, alt: str, width: int, caption: str = "") -> Picture:
    """Return a chart for a page, scaled down to a width and stored as WebP.

    Args:
        picture: any image that Pillow reads.
        alt: description.
        width: largest width, pixels.
        caption: text below it.
    """
    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    if image.width > width:
        height = round(image.height * width / image.width)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, format="WEBP", quality=WEBP_QUALITY, method=4)
    source = data_address("image/webp", content.getvalue())
    return Picture(source, alt, image.width, image.height, caption)


def embed_overlay(picture: Path, alt: str, width: int, case: str = "") -> Picture:
    """Return the picture of a case for a page; for the arguments see `embed`."""
    return replace(embed(picture, alt, width), is_chart=False, case=case)


def embed_all(
    pictures: Mapping[str, Path], alt: str, width: int, limit_mib: float
) -> dict[str, Picture]:
    """Return picture files for a page, in their order, until a size limit is reached.

    Missing files are left out; the last picture may exceed the limit.

    Args:
        pictures: by name.
        alt: description, to which the name is prefixed.
        width: largest width of each, pixels.
        limit_mib: most MiB of all together.
    """
    embedded: dict[str, Picture] = {}
    bytes_left = limit_mib * 2**20
    with progress_bar() as bar:
        task = bar.add_task("writing the page", total=len(pictures), note="")
        for name, file in pictures.items():
            if bytes_left > 0 and file.is_file():
                embedded[name] = embed_overlay(file, f"{name}: {alt}", width, name)
                bytes_left -= len(embedded[name].source)
            bar.advance(task)
    return embedded


def data_address(kind: str, content: bytes) -> str:
    """Return a `data:` address that holds bytes of a MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def write_page(path: Path, template: str, page: Page) -> None:
    """Write a page, whole or not at all.

    Args:
        path: HTML file to write.
        template: file name in `templates/`.
        page: passed to the template as `page`.

    Raises:
        DataError: if it cannot be written, as on a full disk.
    """
    # only scripts with this random number may run: no name of a case can become a script
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
        finalize=_finalize,
    )
    environment.filters["shown"] = _shown
    environment.filters["urlencode"] = partial(quote, errors="backslashreplace")
    environment.filters["key"] = _key
    return environment


def _finalize(value: object) -> object:
    """Return what a template shows of a value: of a text all characters that a reader can see."""
    return visible_lines(value) if type(value) is str else value  # markup is made of such texts


def _shown(cell: str | int | float | Value | None, column: Column) -> str:
    """Return the text of a cell that is neither a link nor a picture."""
    if cell is None:
        return NOT_KNOWN
    if isinstance(cell, Value):
        return cell.text
    if isinstance(cell, str):
        return cell
    return decimal(cell, column.digits or 0)


def _key(cell: Cell) -> str:
    """Return the sort key of a cell, empty for an unknown value."""
    match cell:
        case Link():
            return cell.text
        case Picture() | None:
            return ""
        case Value():
            return _key(cell.number)
        case float() | int():
            return "" if math.isnan(cell) else repr(cell)
    return cell
