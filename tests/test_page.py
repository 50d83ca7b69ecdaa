"""Pages are one file, well-formed, and say what they are given and nothing else."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image
from support.pages import Reader

from segpipe.reporting.page import Column, Link, Page, Sorted, Table, _templates, embed, write_page

HOSTILE = "<script>alert(1)</script>\"'&"


def test_a_name_is_text_and_never_an_element(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "base.html", Page(HOSTILE, "a lead"))
    page = Reader(tmp_path / "page.html")
    assert page.problems == []
    assert page.outside == []
    assert HOSTILE in page.text
    assert len(page.scripts) == 1
    assert all(script["nonce"] for script in page.scripts)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def table(tmp_path: Path, shown: Table) -> Reader:
    text = '{% import "parts.html" as parts %}{{ parts.table(table) }}'
    (tmp_path / "table.html").write_text(
        _templates().from_string(text).render(table=shown), encoding="utf-8"
    )
    return Reader(tmp_path / "table.html")


def test_a_table_shows_numbers_as_asked_and_what_is_not_known_as_a_dash(tmp_path: Path) -> None:
    columns = [Column("case"), Column("Dice", 3), Column("mL", 1)]
    rows = [[HOSTILE, 0.91234, float("nan")], [Link("b c", "overlays/b c#1.png"), None, -3]]
    page = table(tmp_path, Table("scores", columns, rows, Sorted(1)))
    assert page.problems == []
    assert page.cells == [
        ["case", "Dice", "mL"],
        [HOSTILE, "0.912", "—"],
        ["b c", "—", "\N{MINUS SIGN}3.0"],
    ]
    assert ("a", "overlays/b%20c%231.png") in page.addresses
    text = (tmp_path / "table.html").read_text(encoding="utf-8")
    assert 'data-key="0.91234"' in text, "is sorted by what it is, not by what is shown"
    assert text.count('aria-sort="ascending"') == 1
    assert text.count('aria-sort="none"') == 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_a_picture_is_inside_the_page_and_no_wider_than_asked(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (800, 400), (0, 158, 115)).convert(mode).save(tmp_path / "a.png")
    picture = embed(tmp_path / "a.png", "a", 200)
    assert (picture.width, picture.height) == (200, 100)
    kind, _, content = picture.source.partition(";base64,")
    assert kind == "data:image/webp"
    with Image.open(io.BytesIO(base64.b64decode(content))) as inside:
        assert inside.size == (200, 100)
