"""Pages as they are read: on a desk, on a phone, in the dark, on paper, and with a click on a picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.browser import Browser
from support.run_folders import done
from test_viewer import case

from segpipe.reporting.page import Column, Page, Picture, Table, _templates, embed, embed_overlay
from segpipe.reporting.run_page import write_report
from segpipe.reporting.viewer import ViewerBudget

pytestmark = pytest.mark.slow
TEMPLATE = """{% extends "base.html" %}{% import "parts.html" as parts %}{% block content %}
<div class="large">{{ parts.table(cases) }}</div>{{ parts.table(wide) }}{{ parts.picture(chart) }}
<details id="closed"><summary>more</summary><p>inside</p></details>{% endblock %}"""


def picture(folder: Path, size: tuple[int, int], colour: str) -> Path:
    file = folder / f"{colour}.png"
    Image.new("RGB", size, colour).save(file)
    return file


def written(folder: Path) -> Path:
    """A page with a table of pictures that can shrink, one that is too wide, and a chart."""
    overlay = embed_overlay(picture(folder, (1400, 700), "navy"), "a case", 1400, "a")
    tall = embed_overlay(picture(folder, (500, 1400), "teal"), "another case", 1400, "b")
    chart: Picture = embed(picture(folder, (1100, 400), "white"), "a chart", 1100)
    names = [f"Dice label {number}" for number in range(14)]
    columns = [
        Column("case"),
        Column("picture", sortable=False),
        *(Column(one, 3) for one in names),
    ]
    cases = Table("cases", columns, [["a", overlay, *[0.5] * 14], ["b", tall, *[0.7] * 14]])
    wide = Table("wide", [Column(f"column {number}") for number in range(40)], [["some text"] * 40])
    text = _templates().from_string(TEMPLATE)
    page = Page("title", "lead")
    content = text.render(page=page, nonce="n", cases=cases, wide=wide, chart=chart)
    (folder / "page.html").write_text(content, encoding="utf-8")
    return folder / "page.html"


def overflow(opened: Browser) -> list[int]:
    """By how many pixels the page, and each table, is wider than its place."""
    page = opened.ask("document.documentElement.scrollWidth - innerWidth")
    of_tables = "[...document.querySelectorAll('.scroll')].map(s => s.scrollWidth - s.clientWidth)"
    return [page, *opened.ask(of_tables)]


def test_pictures_shrink_until_a_table_fits_and_what_does_not_fit_says_so(
    opened: Browser, tmp_path: Path
) -> None:
    opened.show(written(tmp_path), width=1400)
    page, cases, wide = overflow(opened)
    assert page <= 0
    assert cases <= 0
    assert wide > 0
    sizes = "[...document.querySelectorAll('td img')].map(i => i.clientWidth / i.clientHeight)"
    assert opened.ask(sizes) == pytest.approx([2, 500 / 1400], rel=0.02), "none is distorted"
    hint = "getComputedStyle(document.querySelector('{} caption'), '::after').content"
    assert "scroll sideways" in opened.ask(hint.format(".large ~ .scroll"))
    assert opened.ask(hint.format(".large")) == "none"
    opened.show(tmp_path / "page.html", width=390)
    page, cases, _ = overflow(opened)
    assert page <= 0
    assert cases <= 0, "rows are cards"
    cell = "document.querySelector('.large tbody td:nth-child(3)')"
    assert "Dice label 0" in opened.ask(f"getComputedStyle({cell}, '::before').content || {cell}.dataset.name")  # fmt: skip
    assert opened.complaints == []


def test_charts_are_dark_in_the_dark_and_overlays_stay_as_they_are(
    opened: Browser, tmp_path: Path
) -> None:
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    opened.call("Emulation.setEmulatedMedia", features=dark)
    try:
        opened.show(written(tmp_path), width=1400)
        opened.ask("Promise.all([...document.images].filter(i => i.src).map(i => i.decode()))")
        assert opened.screenshot(".chart img").mean() < 40
        navy = opened.screenshot(".large img").reshape(-1, 3).mean(0)
        assert np.abs(navy - (0, 0, 128)).max() < 6
    finally:
        opened.call("Emulation.setEmulatedMedia", features=[])


def test_on_paper_tables_are_whole_and_nothing_is_closed(opened: Browser, tmp_path: Path) -> None:
    opened.show(written(tmp_path), width=1400)
    opened.ask("dispatchEvent(new Event('beforeprint'))")
    opened.call("Emulation.setEmulatedMedia", media="print")
    try:
        widths = "[...document.querySelectorAll('table')].map(t => t.getBoundingClientRect().width)"
        opened.call("Emulation.setDeviceMetricsOverride", width=720, height=1000, deviceScaleFactor=1, mobile=False)  # fmt: skip
        assert max(opened.ask(widths)) <= 720
        assert opened.ask("document.getElementById('closed').open")
    finally:
        opened.call("Emulation.setEmulatedMedia", media="")


def test_a_click_enlarges_a_picture_which_zooms(opened: Browser, tmp_path: Path) -> None:
    opened.show(written(tmp_path), width=1400)
    opened.ask("document.querySelector('.large .enlarge').click()")
    opened.wait(
        "document.querySelector('dialog').open && document.querySelector('.pan img').style.width"
    )
    width = "document.querySelector('.pan img').getBoundingClientRect().width"
    first = opened.ask(width)
    assert 1000 < first <= 1400, "the whole picture at first"
    opened.ask("document.querySelector('dialog button[aria-label=larger]').click()")
    assert opened.ask(width) == pytest.approx(1.25 * first, rel=0.01)
    assert opened.ask("document.querySelector('.pan').scrollWidth > innerWidth")
    opened.ask("document.querySelector('dialog button[type=submit]').click()")
    assert not opened.ask("document.querySelector('dialog').open")


def test_a_click_on_a_case_opens_the_viewer_at_it_where_that_holds_it(
    opened: Browser, tmp_path: Path
) -> None:
    folder = done(tmp_path / "run")
    budget = ViewerBudget(8.0)
    budget.add(0.1, case("elsewhere"))
    budget.add(0.5, case("easy", 1))
    write_report(folder, viewer=budget)
    opened.show(folder / "report.html")
    click = "document.querySelector('[data-case={}]').click()"
    opened.ask(click.format("easy"))
    opened.wait("document.getElementById('turn').dataset.shown === 'easy,prediction'")
    assert not opened.ask("document.querySelector('dialog').open")
    opened.ask(click.format("hard"))
    opened.wait("document.querySelector('dialog').open")
    assert opened.complaints == []
