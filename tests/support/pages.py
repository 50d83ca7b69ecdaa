"""Pages as a test reads them: well-formed or not, what they show, and what they ask for."""

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "br", "hr", "input", "col"}


class Reader(HTMLParser):
    """Follows the elements of a page.

    Attributes:
        problems: elements that are closed in another order than they were opened.
        addresses: of each `src` and `href`, with the element's name.
        scripts: how often an element `script` begins.
        cells: texts of each row of each table.
    """

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.problems: list[str] = []
        self.addresses: list[tuple[str, str]] = []
        self.scripts: list[dict[str, str | None]] = []
        self.cells: list[list[str]] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))
        self.close()
        self.problems += [f"{name} is never closed" for name in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [(tag, value or "") for name, value in attrs if name in ("src", "href")]
        if tag == "script":
            self.scripts.append(dict(attrs))
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> at line {self.getpos()[0]}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            return
        self.text += data
        if self.cells and {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data.strip()

    @property
    def outside(self) -> list[str]:
        """Addresses that would make a browser ask for something beyond the page's folder."""
        return [to for _, to in self.addresses if "//" in to.split(",")[0]]
