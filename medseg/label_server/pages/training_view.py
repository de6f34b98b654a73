"""How far a training run is, drawn as curves, and which versions there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from medseg.label_server.state import StateFolder
from medseg.label_server.training_progress import (
    Points,
    read_curves,
    read_progress,
)
from medseg.label_server.versions import Version, VersionInfo, Versions

CHART_WIDTH, CHART_HEIGHT = 640, 200
_MARGIN = 8


@dataclass(frozen=True, slots=True)
class Chart:
    """One curve.

    Attributes:
        title: What it shows.
        points: Of an SVG polyline.
        marks: Where its points are, for curves of few.
        low: The lowest value, as text.
        high: The highest.
        last: The last.
    """

    title: str
    points: str
    marks: tuple[tuple[float, float], ...]
    low: str
    high: str
    last: str


@dataclass(frozen=True, slots=True)
class TrainingView:
    """What is shown of the last training run.

    Attributes:
        status: ``none``, ``running``, ``finished`` or ``ended early``.
        step: Steps done.
        steps: Steps it takes.
        best: The best Dice so far, as text.
        charts: Its curves.
    """

    status: str
    step: int
    steps: int
    best: str
    charts: tuple[Chart, ...]


@dataclass(frozen=True, slots=True)
class VersionRow:
    """What is shown of a version.

    Attributes:
        version: The version.
        info: What is known of it.
        is_served: Whether it is in use.
        has_curves: Whether its training left curves.
        created: When, UTC.
    """

    version: Version
    info: VersionInfo
    is_served: bool
    has_curves: bool
    created: str


def view_training(state: StateFolder, *, is_running: bool) -> TrainingView:
    """Return what is shown of the last training run.

    Args:
        state: The state folder.
        is_running: Whether a training run is under way.
    """
    stats = read_progress(state)
    curves = read_curves(state)
    best = stats.get("best_metric")
    charts = (
        _draw_chart("Loss", curves.losses),
        _draw_chart("Validation Dice", curves.validations),
    )
    return TrainingView(
        status=_choose_status(stats, is_running=is_running),
        step=_read_count(stats, "epoch"),
        steps=_read_count(stats, "total_epochs"),
        best=f"{best:.3f}" if isinstance(best, float) else "",
        charts=tuple(chart for chart in charts if chart is not None),
    )


def _choose_status(stats: Mapping[str, object], *, is_running: bool) -> str:
    if is_running:
        return "running"
    if not stats:
        return "none"
    return "finished" if stats.get("total_time") == "done" else "ended early"


def _read_count(stats: Mapping[str, object], key: str) -> int:
    value = stats.get(key, 0)
    return value if isinstance(value, int) else 0


def _draw_chart(title: str, curve: Points) -> Chart | None:
    """Return a curve's chart; ``None`` if there is nothing to draw."""
    if not curve:
        return None
    values = [value for _, value in curve]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    last_step = curve[-1][0] or 1
    width = CHART_WIDTH - 2 * _MARGIN
    height = CHART_HEIGHT - 2 * _MARGIN
    marks = []
    for step, value in curve:
        x = _MARGIN + width * step / last_step
        y = _MARGIN + height * (high - value) / span
        marks.append((round(x, 1), round(y, 1)))
    return Chart(
        title,
        points=" ".join(f"{x},{y}" for x, y in marks),
        marks=tuple(marks),
        low=f"{low:.3g}",
        high=f"{high:.3g}",
        last=f"{values[-1]:.3g}",
    )


def list_version_rows(versions: Versions) -> list[VersionRow]:
    """Return what is shown of the versions, the newest first."""
    served = versions.find_served()
    rows = []
    for version in reversed(versions.list_complete()):
        info = version.read_info()
        row = VersionRow(
            version,
            info,
            is_served=version.number == served.number,
            has_curves=find_curves(version) is not None,
            created=_format_created(info.created),
        )
        rows.append(row)
    return rows


def _format_created(created: str) -> str:
    try:
        return datetime.fromisoformat(created).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return ""


def find_curves(version: Version) -> Path | None:
    """Return the picture of a version's training; ``None`` if there is none."""
    file = version.folder / "curves.png"
    return file if file.is_file() else None
