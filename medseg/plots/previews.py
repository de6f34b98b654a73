"""Pictures for people: learning curves, previews of cases, an overview of one result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.labels import RGB, LabelSet
from medseg.plots.canvas import format_legend_text, new_figure, save_png, to_drawable
from medseg.plots.curves import Curve, TrainingCurves, Validation, draw_curves
from medseg.plots.planes import (
    DisplayOrientation,
    Plane,
    compute_intensity_window,
    select_display_channels,
)
from medseg.volume import Affine, Array, Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = [
    "Curve",
    "PreviewCase",
    "TrainingCurves",
    "Validation",
    "draw_cases",
    "draw_curves",
    "draw_overview",
]

_PANEL_INCHES = 2.3
_TITLE_INCHES = 0.45
_LEGEND_LINE_INCHES, _NOTE_LINE_INCHES = 0.19, 0.15
_LEGEND_PATCH_INCHES, _LETTER_INCHES = 0.6, 0.085
_MOST_IN_LEGEND = 30
_NARROWEST, _WIDEST = 0.5, 2.0
_AREA_OPACITY = 0.4


@dataclass(frozen=True, slots=True, eq=False)
class PreviewCase:
    """One case to show; all arrays lie on one grid.

    Attributes:
        case: Its name.
        image: Shape ``(channels, i, j, k)``; shown is the first channel, or a picture's colours.
        reference: Label indices, shape ``(i, j, k)``.
        prediction: The same.
        affine: Voxel index → patient mm, RAS+.
        dice: Mean Dice of the case, NaN if it has none.
    """

    case: str
    image: Array
    reference: Array
    prediction: Array
    affine: Affine
    dice: float


def draw_cases(path: Path, cases: Sequence[PreviewCase], label_set: LabelSet) -> None:
    """Draw image, reference and prediction of some cases, one row each, into a PNG file.

    The slice is the one with most reference, axial in volumes. There, a coronal and a sagittal
    slice follow, with the reference as area and the prediction as line.

    Raises:
        ValueError: If there is no case.
        OutputError: If the file cannot be written.
    """
    if not cases:
        raise ValueError("at least one case is needed")
    titles = [
        case.case if math.isnan(case.dice) else f"{case.case}   Dice {case.dice:.3f}"
        for case in cases
    ]
    save_png(_sheet(list(map(_preview, cases)), titles, label_set), path)


def draw_overview(
    path: Path, volume: Volume, labels: Array, label_set: LabelSet, *, title: str = ""
) -> None:
    """Draw three planes of a segmented scan, or the one slice of a picture, into a PNG file.

    Args:
        path: The PNG file.
        volume: The scan.
        labels: Label indices on its grid, shape ``(i, j, k)``.
        label_set: Names and colours.
        title: Stands above; it must not name the patient.

    Raises:
        OutputError: If the file cannot be written.
    """
    image = select_display_channels(volume.array)
    view = DisplayOrientation.of(volume.affine, volume.shape)
    turned, found = view.orient(image), view.orient(labels)
    window = compute_intensity_window(image)
    panels = []
    for plane in view.planes(found):
        shown = plane.cut(found)
        panels.append(_Panel(plane, plane.cut(turned), window, shown, shown, plane.name))
    save_png(_sheet([panels], [title], label_set), path)


@dataclass(frozen=True, slots=True, eq=False)
class _Panel:
    """One slice, rows × columns, with one label map as area and one as line."""

    plane: Plane
    image: Array
    window: tuple[float, float]
    area: Array | None = None
    line: Array | None = None
    title: str = ""

    @property
    def width(self) -> float:
        """Width of the panel where its height is 1."""
        width, height = self.plane.size
        return min(max(width / height, _NARROWEST), _WIDEST)

    @property
    def compares(self) -> bool:
        """Whether area and line are different label maps."""
        return self.area is not self.line

    def indices(self) -> set[int]:
        """Return the labels to be seen."""
        shown = [labels for labels in (self.area, self.line) if labels is not None]
        return {int(index) for labels in shown for index in np.unique(labels)}


@dataclass(frozen=True, slots=True)
class _Foot:
    """What stands below all panels: the labels' colours, and how to read the panels."""

    entries: Sequence[tuple[str, RGB]]
    per_line: int
    notes: Sequence[str]

    @classmethod
    def below(cls, panels: Sequence[_Panel], label_set: LabelSet, width: float) -> _Foot:
        """Choose what to say about panels on a sheet of this width in inches."""
        seen = set().union(*(panel.indices() for panel in panels))
        labels = [label for label in label_set if label.index in seen]
        entries = [
            (format_legend_text(label.name), label.colour) for label in labels[:_MOST_IN_LEGEND]
        ]
        longest = max((len(name) for name, _ in entries), default=0)
        per_line = max(1, int(width / (_LEGEND_PATCH_INCHES + _LETTER_INCHES * longest)))
        notes = []
        if len(labels) > len(entries):
            notes.append(f"and {len(labels) - len(entries)} more labels")
        if any(panel.plane.name for panel in panels):
            notes.append(
                "axial and coronal: patient's right on the left; sagittal: anterior on the left"
            )
        if any(panel.compares for panel in panels):
            notes.append("both: reference as area, prediction as line")
        return cls(entries, min(per_line, max(1, len(entries))), notes)

    @property
    def height(self) -> float:
        """Height in inches."""
        lines = math.ceil(len(self.entries) / self.per_line)
        return _LEGEND_LINE_INCHES * lines + _NOTE_LINE_INCHES * len(self.notes) + 0.1

    def draw(self, place: SubFigure) -> None:
        """Draw it."""
        from matplotlib.patches import Patch

        if self.entries:
            place.legend(
                handles=[Patch(color=_rgb(colour), label=name) for name, colour in self.entries],
                loc="upper center", ncols=self.per_line, fontsize=9, frameon=False,
                borderaxespad=0, borderpad=0.1, labelspacing=0.3,
            )  # fmt: skip
        text = "\n".join(self.notes)
        place.text(0.5, 0.02, text, ha="center", va="bottom", fontsize=8, color="#555555")


def _preview(case: PreviewCase) -> list[_Panel]:
    i, j, k = case.reference.shape
    view = DisplayOrientation.of(case.affine, (i, j, k))
    image = select_display_channels(case.image)
    turned, truth, found = map(view.orient, (image, case.reference, case.prediction))
    window = compute_intensity_window(image)
    first, *others = view.planes(truth if truth.any() else found)
    shown, true, predicted = map(first.cut, (turned, truth, found))
    return [
        _Panel(first, shown, window, title=f"{first.name} image".strip()),
        _Panel(first, shown, window, true, true, "reference"),
        _Panel(first, shown, window, predicted, predicted, "prediction"),
        *(
            _Panel(
                plane, plane.cut(turned), window, plane.cut(truth), plane.cut(found),
                f"{plane.name}: both",
            )
            for plane in others
        ),
    ]  # fmt: skip


def _sheet(rows: Sequence[Sequence[_Panel]], titles: Sequence[str], label_set: LabelSet) -> Figure:
    """Lay panels out in rows, with a title above each and the legend below all."""
    columns = max(map(len, rows))
    widths = [max(row[n].width for row in rows if n < len(row)) for n in range(columns)]
    width = max(sum(widths) * _PANEL_INCHES, 4.0)
    foot = _Foot.below([panel for row in rows for panel in row], label_set, width)
    heights = [_PANEL_INCHES + _TITLE_INCHES] * len(rows) + [foot.height]
    figure = new_figure(width, sum(heights))
    *strips, last = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
    for row, title, strip in zip(rows, titles, strips, strict=True):
        strip.suptitle(to_drawable(title), fontsize=10, fontweight="bold")
        places = strip.subplots(1, columns, squeeze=False, width_ratios=widths)[0]
        for place in places:
            place.set_axis_off()
        for panel, place in zip(row, places, strict=False):
            _draw_panel(place, panel, label_set)
    foot.draw(last)
    return figure


def _draw_panel(axes: Axes, panel: _Panel, label_set: LabelSet) -> None:
    rows, columns = panel.image.shape[:2]
    width, height = panel.plane.size
    placed: dict[str, Any] = {
        "aspect": (height / rows) / (width / columns),
        "interpolation": "nearest",
    }
    low, high = panel.window
    image = np.clip((np.nan_to_num(panel.image, nan=low) - low) / (high - low), 0, 1)
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, **placed)
    axes.set_title(panel.title, fontsize=9)
    if panel.area is not None:
        axes.imshow(_coloured(panel.area, label_set), **placed)
    for label in label_set:
        if panel.line is None or not (panel.line == label.index).any():
            continue
        # A margin of background closes the lines of labels that touch the border.
        axes.contour(
            np.arange(-1, columns + 1),
            np.arange(-1, rows + 1),
            np.pad(panel.line == label.index, 1).astype(float),
            levels=[0.5],
            colors=[_rgb(label.colour)],
            linewidths=1.2,
        )
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)


def _coloured(labels: Array, label_set: LabelSet) -> Array:
    """Return RGBA, shape ``(rows, columns, 4)``, with background transparent."""
    table = np.zeros((label_set.classes, 4))
    for label in label_set:
        table[label.index] = (*_rgb(label.colour), _AREA_OPACITY)
    known = np.where((labels > 0) & (labels < len(table)), labels, 0)
    return table[known.astype(np.intp)]


def _rgb(colour: RGB) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
