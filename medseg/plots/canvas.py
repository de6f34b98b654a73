"""What all drawings share: figures without global state, colours, text that can be drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medseg._support.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The palette of Okabe and Ito, which most people can tell apart.
LINES = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C6D1F",
)
STAR = "#E69F00"
FAINT = "#9A9A9A"
DARK = "#202020"

_DPI = 130
_LONGEST_TEXT = 60


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, which pyplot does not know of."""
    from matplotlib.figure import Figure

    return Figure(
        figsize=(width, height),
        dpi=_DPI,
        layout="constrained",
        facecolor="white",
    )


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        OutputError: If the file cannot be written.
    """
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")


def to_drawable(text: str) -> str:
    """Return ``text`` as the font can draw it: short, no formulas, ``?`` for unknown signs."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans")).get_charmap()
    signs = []
    for sign in text:
        can_be_drawn = ord(sign) in known and sign.isprintable()
        signs.append(sign if can_be_drawn else "?")
    shown = "".join(signs)
    if len(shown) > _LONGEST_TEXT:
        shown = shown[: _LONGEST_TEXT - 1] + "…"
    # matplotlib takes what stands between two dollars for a formula.
    return shown.replace("$", r"\$")


def format_legend_text(name: str) -> str:
    """Return a name as a legend shows it."""
    # Legends leave out what starts with an underscore.
    return to_drawable(f" {name}" if name.startswith("_") else name)
