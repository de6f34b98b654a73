"""Text becomes what the font can draw; figures belong to no global state."""

from __future__ import annotations

import matplotlib.pyplot
from PIL import Image

from medseg.plots.canvas import (
    format_legend_text,
    new_figure,
    save_png,
    to_drawable,
)


def test_signs_the_font_lacks_become_question_marks() -> None:
    assert to_drawable("肝 x") == "? x"
    assert to_drawable("a\nb") == "a?b"
    assert to_drawable("lésion µm") == "lésion µm"


def test_long_text_is_cut_and_marked() -> None:
    assert to_drawable("x" * 60) == "x" * 60
    assert to_drawable("x" * 61) == "x" * 59 + "…"


def test_dollars_start_no_formula() -> None:
    assert to_drawable("$x$") == r"\$x\$"


def test_legends_show_names_that_begin_with_an_underscore() -> None:
    assert format_legend_text("_hidden") == " _hidden"
    assert format_legend_text("liver") == "liver"


def test_figures_are_written_without_pyplot(tmp_path) -> None:
    figure = new_figure(2, 1)
    save_png(figure, tmp_path / "new" / "a.png")
    assert Image.open(tmp_path / "new" / "a.png").size == (260, 130)
    assert matplotlib.pyplot.get_fignums() == []
