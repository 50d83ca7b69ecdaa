"""Every figure in the formats that were asked for."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image
from support.commands import command

from segpipe.config.compose import check
from segpipe.config.predict import Predict
from segpipe.errors import ConfigError
from segpipe.reporting.figures import save, show_plain_numbers
from segpipe.reporting.formats import figures_as, in_use
from segpipe.reporting.pictures import draw_overlay


def test_a_figure_is_written_in_each_format_with_its_texts_as_texts(tmp_path: Path) -> None:
    figure = Figure()
    figure.add_subplot().set_title("liver <b> $x$")
    with figures_as(["png", "pdf", "svg"]):
        save(figure, tmp_path / "a.b.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.b.pdf", "a.b.png", "a.b.svg"]
    assert (tmp_path / "a.b.pdf").read_bytes().startswith(b"%PDF")
    assert "liver &lt;b&gt; $x$</text>" in (tmp_path / "a.b.svg").read_text()
    assert in_use() == ["png"], "the choice ends with the block"


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[2:5, 2:5, 2:5] = 1
    with figures_as(["svg", "pdf"]):
        for name in ("one", "two"):
            file = tmp_path / name / "case.png"
            draw_overlay(labels, labels, labels, (1.0, 1.0, 2.0), ["liver"], "case", file)
    for kind in ("svg", "pdf"):
        first = (tmp_path / "one" / f"case.{kind}").read_bytes()
        assert first == (tmp_path / "two" / f"case.{kind}").read_bytes()


def test_a_command_takes_the_key_into_its_workers(tmp_path: Path) -> None:
    for folder in ("masks", "truth"):
        (tmp_path / folder).mkdir()
        for case in ("a", "b"):
            mask = np.zeros((8, 9), np.uint8)
            mask[2:5, 2:5] = 1
            Image.fromarray(mask).save(tmp_path / folder / f"{case}.png")
    words = ["prediction=masks", "truth=truth", "output=out", "page.figures=[png,svg]", "workers=2"]
    done = command("segpipe.evaluate", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("overlays/a", "overlays/b", "boxes"):
        assert (tmp_path / "out" / f"{name}.svg").is_file()
        assert (tmp_path / "out" / f"{name}.png").is_file()
        assert not (tmp_path / "out" / f"{name}.pdf").exists()


def test_a_format_that_nobody_writes_is_refused() -> None:
    words = ["page.figures=[eps]", "checkpoint=x", "input=y", "output=z"]
    with pytest.raises(ConfigError, match=r"page.figures.*'png', 'pdf' or 'svg'"):
        check("predict", Predict, words)


@pytest.mark.parametrize("plain", [True, False])
def test_a_scale_of_colours_has_numbers_that_people_read(tmp_path: Path, plain: bool) -> None:
    """Those between powers of ten as well, which another formatter makes."""
    figure = Figure()
    scale = ScalarMappable(LogNorm(0.15, 4), "viridis")
    bar = figure.colorbar(scale, ax=figure.add_subplot(), format="%.2g")
    if plain:
        show_plain_numbers(bar.ax.yaxis)
    save(figure, tmp_path / "scale.png")
    names = bar.ax.yaxis.get_ticklabels(which="both")
    marked = [name for name in names if "$" in name.get_text()]
    assert all(name.get_parse_math() for name in marked)
    if plain:
        assert {"0.2", "0.3", "1", "2"} <= {name.get_text() for name in names}
        assert not marked
    else:
        assert marked
