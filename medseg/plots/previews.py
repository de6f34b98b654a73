"""Pictures for people: learning curves, previews of cases, an overview of one result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg.labels import RGB, Label, LabelSet
from medseg.plots.canvas import (
    format_legend_text,
    new_figure,
    save_png,
    to_drawable,
)
from medseg.plots.curves import Curve, TrainingCurves, Validation, draw_curves
from medseg.plots.planes import (
    DisplayOrientation,
    Plane,
    compute_intensity_window,
    select_display_channels,
    show_planes,
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


def draw_cases(
    path: Path, cases: Sequence[PreviewCase], label_set: LabelSet
) -> None:
    """Draw image, reference and prediction of some cases, one row each, into a PNG file.

    The slice is the one with most reference, axial in volumes. There, a coronal and a sagittal
    slice follow, with the reference as area and the prediction as line.

    Raises:
        ValueError: If there is no case.
        OutputError: If the file cannot be written.
    """
    if not cases:
        raise ValueError("at least one case is needed")
    rows = [_Row(_make_title(case), _compare(case)) for case in cases]
    save_png(_draw_sheet(rows, label_set), path)


def draw_overview(
    path: Path,
    volume: Volume,
    labels: Array,
    label_set: LabelSet,
    *,
    title: str = "",
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
    panels = []
    for shown in show_planes(volume, labels):
        panels.append(
            _Panel(
                shown.plane,
                shown.image,
                shown.window,
                shown.labels,
                shown.labels,
                shown.plane.name,
            )
        )
    save_png(_draw_sheet([_Row(title, panels)], label_set), path)


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

    def visible_indices(self) -> set[int]:
        """Return the labels to be seen."""
        indices: set[int] = set()
        for labels in (self.area, self.line):
            if labels is not None:
                indices.update(np.unique(labels).tolist())
        return indices


@dataclass(frozen=True, slots=True)
class _Row:
    """Panels side by side, and what stands above them."""

    title: str
    panels: Sequence[_Panel]


@dataclass(frozen=True, slots=True)
class _Footer:
    """What stands below all panels: the labels' colours, and how to read the panels."""

    entries: Sequence[tuple[str, RGB]]
    per_line: int
    notes: Sequence[str]

    @classmethod
    def for_panels(
        cls, panels: Sequence[_Panel], label_set: LabelSet, width: float
    ) -> _Footer:
        """Choose what to say about panels on a sheet of this width in inches."""
        labels = _visible_labels(panels, label_set)
        entries = []
        longest = 0
        for label in labels[:_MOST_IN_LEGEND]:
            text = format_legend_text(label.name)
            entries.append((text, label.colour))
            longest = max(longest, len(text))
        entry_width = _LEGEND_PATCH_INCHES + _LETTER_INCHES * longest
        per_line = min(int(width / entry_width), len(entries))
        notes = _choose_notes(
            panels, labels_left_out=len(labels) - len(entries)
        )
        return cls(entries, max(1, per_line), notes)

    @property
    def height(self) -> float:
        """Height in inches."""
        lines = math.ceil(len(self.entries) / self.per_line)
        return (
            _LEGEND_LINE_INCHES * lines
            + _NOTE_LINE_INCHES * len(self.notes)
            + 0.1
        )

    def draw(self, figure: SubFigure) -> None:
        """Draw the legend and the notes into the lowest part of a sheet."""
        from matplotlib.patches import Patch

        if self.entries:
            figure.legend(
                handles=[
                    Patch(color=_to_float(colour), label=name)
                    for name, colour in self.entries
                ],
                loc="upper center",
                ncols=self.per_line,
                fontsize=9,
                frameon=False,
                borderaxespad=0,
                borderpad=0.1,
                labelspacing=0.3,
            )
        text = "\n".join(self.notes)
        figure.text(
            0.5,
            0.02,
            text,
            ha="center",
            va="bottom",
            fontsize=8,
            color="#555555",
        )


def _visible_labels(
    panels: Sequence[_Panel], label_set: LabelSet
) -> list[Label]:
    visible: set[int] = set()
    for panel in panels:
        visible |= panel.visible_indices()
    return [label for label in label_set if label.index in visible]


def _choose_notes(panels: Sequence[_Panel], labels_left_out: int) -> list[str]:
    notes = []
    if labels_left_out:
        notes.append(f"and {labels_left_out} more labels")
    if any(panel.plane.name for panel in panels):
        notes.append(
            "axial and coronal: patient's right on the left; sagittal: anterior on the left"
        )
    if any(panel.compares for panel in panels):
        notes.append("both: reference as area, prediction as line")
    return notes


def _make_title(case: PreviewCase) -> str:
    if math.isnan(case.dice):
        return case.case
    return f"{case.case}   Dice {case.dice:.3f}"


def _compare(case: PreviewCase) -> list[_Panel]:
    """Return the panels of one case: image, reference, prediction, and both in other planes."""
    i, j, k = case.reference.shape
    display = DisplayOrientation.from_grid(case.affine, (i, j, k))
    shown_channels = select_display_channels(case.image)
    window = compute_intensity_window(shown_channels)
    image = display.orient(shown_channels)
    reference = display.orient(case.reference)
    prediction = display.orient(case.prediction)
    first, *others = display.planes(
        reference if reference.any() else prediction
    )

    def make_panel(
        plane: Plane, area: Array | None, line: Array | None, title: str
    ) -> _Panel:
        return _Panel(plane, plane.extract(image), window, area, line, title)

    first_reference = first.extract(reference)
    first_prediction = first.extract(prediction)
    panels = [
        make_panel(first, None, None, f"{first.name} image".strip()),
        make_panel(first, first_reference, first_reference, "reference"),
        make_panel(first, first_prediction, first_prediction, "prediction"),
    ]
    for plane in others:
        area, line = plane.extract(reference), plane.extract(prediction)
        panels.append(make_panel(plane, area, line, f"{plane.name}: both"))
    return panels


def _draw_sheet(rows: Sequence[_Row], label_set: LabelSet) -> Figure:
    """Lay panels out in rows, with a title above each and the legend below all."""
    widths = _column_widths(rows)
    width = max(sum(widths) * _PANEL_INCHES, 4.0)
    panels: list[_Panel] = []
    for row in rows:
        panels.extend(row.panels)
    footer = _Footer.for_panels(panels, label_set, width)
    heights = [_PANEL_INCHES + _TITLE_INCHES] * len(rows) + [footer.height]
    figure = new_figure(width, sum(heights))
    places = figure.subfigures(
        len(heights), 1, height_ratios=heights, squeeze=False
    )
    *strips, last = places.ravel()
    for row, strip in zip(rows, strips, strict=True):
        _draw_row(strip, row, widths, label_set)
    footer.draw(last)
    return figure


def _draw_row(
    figure: SubFigure, row: _Row, widths: Sequence[float], label_set: LabelSet
) -> None:
    figure.suptitle(to_drawable(row.title), fontsize=10, fontweight="bold")
    grid = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)
    columns = grid[0]
    for axes in columns:
        axes.set_axis_off()
    for panel, axes in zip(row.panels, columns, strict=False):
        _draw_panel(axes, panel, label_set)


def _column_widths(rows: Sequence[_Row]) -> list[float]:
    """Return the width of each column: that of its widest panel."""
    widths: list[float] = []
    for row in rows:
        for column, panel in enumerate(row.panels):
            if column == len(widths):
                widths.append(panel.width)
            widths[column] = max(widths[column], panel.width)
    return widths


def _draw_panel(axes: Axes, panel: _Panel, label_set: LabelSet) -> None:
    rows, columns = panel.image.shape[:2]
    width, height = panel.plane.size
    aspect = (height / rows) / (width / columns)
    low, high = panel.window
    image = np.nan_to_num(panel.image, nan=low)
    image = np.clip((image - low) / (high - low), 0, 1)
    axes.imshow(
        image,
        cmap="gray",
        vmin=0,
        vmax=1,
        aspect=aspect,
        interpolation="nearest",
    )
    axes.set_title(panel.title, fontsize=9)
    if panel.area is not None:
        area = _colour_labels(panel.area, label_set)
        axes.imshow(area, aspect=aspect, interpolation="nearest")
    if panel.line is not None:
        _draw_outlines(axes, panel.line, label_set)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)


def _draw_outlines(axes: Axes, labels: Array, label_set: LabelSet) -> None:
    rows, columns = labels.shape
    for label in label_set:
        is_label = labels == label.index
        if not is_label.any():
            continue
        # A margin of background closes the lines of labels that touch the border.
        axes.contour(
            np.arange(-1, columns + 1),
            np.arange(-1, rows + 1),
            np.pad(is_label, 1).astype(float),
            levels=[0.5],
            colors=[_to_float(label.colour)],
            linewidths=1.2,
        )


def _colour_labels(labels: Array, label_set: LabelSet) -> Array:
    """Return RGBA, shape ``(rows, columns, 4)``, with background transparent."""
    colours = np.zeros((label_set.classes, 4))
    for label in label_set:
        colours[label.index] = (*_to_float(label.colour), _AREA_OPACITY)
    is_known = (labels > 0) & (labels < len(colours))
    indices = np.where(is_known, labels, 0).astype(np.intp)
    return colours[indices]


def _to_float(colour: RGB) -> tuple[float, float, float]:
    """Return a colour as matplotlib wants it, 0 to 1."""
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
