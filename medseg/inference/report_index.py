"""The overview of a batch of very many scans: what became of them, and where to look first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg._support.html import render_page
from medseg.inference.ledger_entry import Entry
from medseg.inference.report_rows import list_colours, list_label_names
from medseg.inference.scan_counts import ScanCounts
from medseg.labels import LabelSet

PAGES = "report"
"""The folder of pages among the results."""

PAGE_SCANS = 200
"""Scans of one page."""

_BINS = 32
_CAUSES = 30
_OUTLIERS = 30
_FEWEST_FOR_OUTLIERS = 20

_FAR = 5.0
"""Robust standard deviations from the median from which on a volume is an outlier."""

_MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution / its median absolute deviation."""

_IMPOSSIBLE = 1e100
"""A number from which on, as NaN, it was put into a ledger by hand; nothing is counted with it."""

_LEAST_WIDTH = 1e-12
"""Of what bars are drawn of, in proportion to its size."""

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True, slots=True)
class Distribution:
    """How a number is distributed over the results.

    Attributes:
        name: What it is.
        count: How many results have it.
        low, median, high: The 5th, 50th and 95th percentile.
        first, last: Where the bars begin and end: the least and the greatest of the central 99 %.
        heights: Of the bars, from 0 to 1; what lies beyond is in the outer ones.
    """

    name: str
    count: int
    low: float
    median: float
    high: float
    first: float
    last: float
    heights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Outlier:
    """A result whose volume of a structure lies far from the others'.

    Attributes:
        scan: The scan.
        label: The structure.
        volume_ml: Its volume.
        distance: From the median, in robust standard deviations.
        page: The file of the page with the scan.
    """

    scan: str
    label: str
    volume_ml: float
    distance: float
    page: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Why scans failed.

    Attributes:
        text: What is wrong.
        count: How many scans it concerns.
        scan: One of them.
        page: The file of the page with that one.
    """

    text: str
    count: int
    scan: str
    page: str


def count_pages(scans: int) -> int:
    """Return how many pages show these scans."""
    return -(-scans // PAGE_SCANS)


def name_page(number: int) -> str:
    """Return the file name of a page, from 1."""
    return f"{number:04}.html"


def render_index(
    ordered: Sequence[Entry],
    counts: ScanCounts,
    title: str,
    label_set: LabelSet,
) -> str:
    """Return the overview.

    Args:
        ordered: The latest entry of each scan, in the order of the pages.
        counts: Of these.
        title: The bundle's name and version.
        label_set: Whose colours the pictures have.
    """
    pages = {}
    for place, entry in enumerate(ordered):
        pages[entry.scan] = name_page(place // PAGE_SCANS + 1)
    good = [entry for entry in ordered if entry.is_good]
    names = list_label_names(good, label_set)
    volumes: list[Distribution | None] = []
    outliers: list[Outlier] = []
    for name in names:
        found = _list_volumes(good, name)
        volumes.append(_describe(name, list(found.values())))
        outliers.extend(_find_outliers(name, found, pages))
    outliers.sort(key=lambda outlier: -abs(outlier.distance))
    return render_page(
        _TEMPLATES / "batch_index.html.j2",
        title=title,
        counts=counts,
        pages=[
            _describe_page(ordered, number)
            for number in range(1, count_pages(len(ordered)) + 1)
        ],
        folder=PAGES,
        quality=_describe("expected Dice", _list_expected_dice(good)),
        volumes=volumes,
        colours=list_colours(label_set),
        causes=_list_causes(ordered, pages),
        outliers=outliers[:_OUTLIERS],
        more_outliers=max(0, len(outliers) - _OUTLIERS),
    )


def _list_expected_dice(good: Sequence[Entry]) -> list[float]:
    """Return the expected Dice of the results for which it means something."""
    numbers = []
    for entry in good:
        quality = entry.quality
        if quality is None or quality.expected_dice is None:
            continue
        is_possible = abs(quality.expected_dice) < _IMPOSSIBLE
        if is_possible and quality.to_quality().is_judged:
            numbers.append(quality.expected_dice)
    return numbers


def _list_volumes(good: Sequence[Entry], name: str) -> dict[str, float]:
    """Return the millilitres of a structure, by scan."""
    volumes = {}
    for entry in good:
        volume = entry.volumes_ml.get(name, _IMPOSSIBLE)
        if abs(volume) < _IMPOSSIBLE:
            volumes[entry.scan] = volume
    return volumes


def _describe(name: str, values: Sequence[float]) -> Distribution | None:
    if not values:
        return None
    numbers = np.asarray(values, dtype=float)
    low, median, high = np.percentile(numbers, [5, 50, 95])
    first, last = np.percentile(numbers, [0.5, 99.5])
    if last - first <= _LEAST_WIDTH * abs(first):
        margin = max(0.5, _LEAST_WIDTH * abs(first))
        first, last = first - margin, last + margin
    inside = np.clip(numbers, first, last)
    counts, _ = np.histogram(inside, bins=_BINS, range=(first, last))
    heights = counts / counts.max()
    return Distribution(
        name,
        len(values),
        float(low),
        float(median),
        float(high),
        float(first),
        float(last),
        tuple(heights.tolist()),
    )


def _find_outliers(
    name: str, volumes: dict[str, float], pages: dict[str, str]
) -> list[Outlier]:
    """Return the scans whose volume of a structure lies far from the median of all."""
    if len(volumes) < _FEWEST_FOR_OUTLIERS:
        return []
    numbers = np.asarray(list(volumes.values()), dtype=float)
    median = float(np.median(numbers))
    sigma = _MAD_TO_SIGMA * float(np.median(np.abs(numbers - median)))
    if sigma <= 0:
        return []
    outliers = []
    for scan, volume in volumes.items():
        distance = (volume - median) / sigma
        if abs(distance) > _FAR:
            outliers.append(Outlier(scan, name, volume, distance, pages[scan]))
    return outliers


def _list_causes(
    ordered: Sequence[Entry], pages: dict[str, str]
) -> list[Cause]:
    """Return why scans failed, the most frequent cause first."""
    counts = Counter(entry.error for entry in ordered if entry.is_failed)
    examples: dict[str, str] = {}
    for entry in ordered:
        if entry.is_failed:
            examples.setdefault(entry.error, entry.scan)
    causes = []
    for text, count in counts.most_common(_CAUSES):
        scan = examples[text]
        causes.append(Cause(text, count, scan, pages[scan]))
    return causes


def _describe_page(ordered: Sequence[Entry], number: int) -> dict[str, object]:
    start = (number - 1) * PAGE_SCANS
    shown = ordered[start : start + PAGE_SCANS]
    return {
        "file": name_page(number),
        "first": start + 1,
        "last": start + len(shown),
        "failed": sum(entry.is_failed for entry in shown),
        "flagged": sum(entry.needs_review for entry in shown),
    }
