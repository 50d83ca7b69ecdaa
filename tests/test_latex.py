"""Tables for LaTeX: nothing in a name is a command, numbers have the digits and units of the page."""

import math
import re

from segpipe.intervals import Interval
from segpipe.reporting.latex import escaped, latex_table
from segpipe.reporting.page import Column, Link, Picture, Table, Value
from segpipe.units import UNITS

COLUMNS = [Column("label"), Column("picture"), Column("Dice", 3), Column("95 % interval"), Column("HD95 mm", 2)]  # fmt: skip


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of each row, as LaTeX would split them."""
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0].replace(r"\midrule", "")
    rows = [row for row in body.split(r"\\") if row.strip()]
    return [re.split(r"\s*(?<!\\)&\s*", row.strip()) for row in rows]


def test_a_table_has_the_digits_and_units_of_the_page() -> None:
    picture = Picture("data:,", "", 1, 1)
    rows = [
        ["liver", picture, 0.98765, "0.9 to -0.1", 1.234],
        ["mean", None, float("nan"), None, -3],
    ]
    text = latex_table(Table("means over 3 cases", COLUMNS, rows), "result")
    assert rows_of(text) == [
        ["label", "Dice", r"95 \% interval", "HD95 (mm)"],
        ["liver", "0.988", "0.9 to $-$0.1", "1.23"],
        ["mean", "--", "--", "$-$3.00"],
    ]
    assert r"\begin{tabular}{lrlr}" in text
    assert r"\caption{means over 3 cases.}" in text
    assert r"\label{tab:result}" in text


def test_a_mean_with_its_interval_and_a_mark_is_set_as_it_is_shown() -> None:
    interval = Interval(-0.5, -1.0, 0.25)
    cell = Value(-0.5, f"{interval.shown(2)}†")
    text = latex_table(Table("x", [Column("Dice", 2)], [[cell]]), "x")
    assert rows_of(text)[1] == [r"$-$0.50~($-$1.00~to~0.25)$\dagger$"]
    assert escaped(Interval(0.9, 0.85, 0.95).shown(2)) == "0.90~(0.85--0.95)"


def test_names_are_no_commands_and_no_columns() -> None:
    name = "a_b & 50 % \\input{x} $y$ #1 ~^<>{}\nz"
    text = latex_table(Table(name, [Column(name)], [[name], [Link(name, "x.html")]]), "x")
    rows = rows_of(text)
    assert [len(row) for row in rows] == [1, 1, 1]
    assert rows[0] == rows[1] == rows[2] == [escaped(name)]
    bare = re.sub(r"\\[&%$#_{}]|\\text\w+\{\}", "", rows[0][0])
    assert not set(bare) & set("&%$#_{}~^<>")
    assert bare.count("\\") == 0, bare
    assert "\n" not in escaped(name)


def test_units_of_images_and_differences() -> None:
    names = ["volume, mL", "HD95 mm", "Dice, points", "p, Holm", "NSD 1 mm", "seconds, s"]
    columns = [Column(UNITS["px2"].in_text(name), 1) for name in names]
    heads = rows_of(latex_table(Table("x", columns, [[math.inf] * 6]), "x"))
    assert heads[0] == [r"volume (px\textsuperscript{2})", "HD95 (px)", "Dice (points)", "p, Holm", "NSD 1 (px)", "seconds (s)"]  # fmt: skip
    assert heads[1] == ["--"] * 6
