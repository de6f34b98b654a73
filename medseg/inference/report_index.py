"""The overview of a batch of very many scans: what became of them, and where to look first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg._support.html import render_page
from medseg.inference.batch_overview import BatchOverview, Numbers, Places
from medseg.inference.report_rows import list_colours

PAGES = "report"
"""The folder of pages among the results."""

PAGE_SCANS = 200
"""Scans of one page."""

_BINS = 32
_CAUSES = 30
_OPEN_CHARTS = 12
"""Charts that are seen at once; more unfold, since pages of scans stand below them."""
_OUTLIERS = 30
_FEWEST_FOR_OUTLIERS = 20

_FAR = 5.0
"""Robust standard deviations from the median from which on a volume is an outlier."""

_MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution / its median absolute deviation."""

_LEAST_WIDTH = 1e-12
"""Of what bars are drawn of, in proportion to its size."""

_Found = tuple[float, str, int]
"""Of a result far from the others: how far, the structure, and its entry."""

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


def render_index(overview: BatchOverview, title: str) -> str:
    """Return the overview of all scans.

    Args:
        overview: The latest entry of each scan.
        title: The bundle's name and version.
    """
    positions = overview.find_positions()
    pages = positions // PAGE_SCANS
    outliers, count = _find_outliers(overview)
    distributions = [
        _describe(name, numbers[np.isfinite(numbers)])
        for name, numbers in _list_volumes(overview)
    ]
    return render_page(
        _TEMPLATES / "batch_index.html.j2",
        title=title,
        counts=overview.counts,
        pages=_describe_pages(overview, pages),
        folder=PAGES,
        quality=_describe("expected Dice", overview.expected_dice),
        volumes=distributions,
        most_open=_OPEN_CHARTS,
        colours=list_colours(overview.label_set),
        causes=_list_causes(overview, positions),
        outliers=[
            _show_outlier(overview, outlier, pages) for outlier in outliers
        ],
        more_outliers=count - len(outliers),
    )


def _list_volumes(overview: BatchOverview) -> Iterator[tuple[str, Numbers]]:
    """Give the structures that the results have, and their millilitres in each."""
    for name in overview.names:
        if name in overview.volumes:
            yield name, overview.volumes[name]


def _describe(name: str, numbers: Numbers) -> Distribution | None:
    if not len(numbers):
        return None
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
        len(numbers),
        float(low),
        float(median),
        float(high),
        float(first),
        float(last),
        tuple(heights.tolist()),
    )


def _find_outliers(overview: BatchOverview) -> tuple[list[_Found], int]:
    """Return volumes far from the median of their structure, the farthest first, and the number.

    Of very many labels and scans, those that are shown alone are held.
    """
    found: list[_Found] = []
    count = 0
    for name, numbers in _list_volumes(overview):
        known = np.flatnonzero(np.isfinite(numbers))
        volumes = numbers[known]
        if len(volumes) < _FEWEST_FOR_OUTLIERS:
            continue
        median = np.median(volumes)
        sigma = _MAD_TO_SIGMA * np.median(np.abs(volumes - median))
        if sigma <= 0:
            continue
        distances = (volumes - median) / sigma
        far = np.flatnonzero(np.abs(distances) > _FAR)
        count += len(far)
        for each in far:
            result = int(overview.results[known[each]])
            found.append((float(distances[each]), name, result))
        found.sort(key=lambda each: -abs(each[0]))
        del found[_OUTLIERS:]
    return found, count


def _show_outlier(
    overview: BatchOverview, found: _Found, pages: Places
) -> Outlier:
    distance, name, place = found
    entry = overview.entries[place]
    volume = entry.volumes_ml[name]
    page = name_page(int(pages[place]) + 1)
    return Outlier(entry.scan, name, volume, distance, page)


def _list_causes(overview: BatchOverview, positions: Places) -> list[Cause]:
    """Return why scans failed, the most frequent cause first."""
    firsts = {
        text: places[np.argmin(positions[places])]
        for text, places in overview.causes.items()
    }
    texts = sorted(firsts, key=lambda text: positions[firsts[text]])
    texts.sort(key=lambda text: -len(overview.causes[text]))
    causes = []
    for text in texts[:_CAUSES]:
        first = firsts[text]
        scan = overview.entries[first].scan
        page = name_page(int(positions[first]) // PAGE_SCANS + 1)
        causes.append(Cause(text, len(overview.causes[text]), scan, page))
    return causes


def _describe_pages(
    overview: BatchOverview, pages: Places
) -> list[dict[str, object]]:
    scans = len(overview.order)
    count = count_pages(scans)
    failed = np.bincount(pages[overview.failed], minlength=count)
    flagged = np.bincount(pages[overview.flagged], minlength=count)
    described: list[dict[str, object]] = []
    for number in range(count):
        start = number * PAGE_SCANS
        described.append(
            {
                "file": name_page(number + 1),
                "first": start + 1,
                "last": min(start + PAGE_SCANS, scans),
                "failed": int(failed[number]),
                "flagged": int(flagged[number]),
            }
        )
    return described
