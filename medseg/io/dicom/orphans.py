"""A few slices that belong to no other of their series: another series may have lost them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Set
from dataclasses import replace

from medseg._support.spool import Spool
from medseg.io.dicom.frames import Frame
from medseg.io.dicom.geometry import are_parallel
from medseg.io.dicom.header_parts import HeaderGroup
from medseg.io.dicom.series import Series
from medseg.io.dicom.stacks import FEWEST_SLICES, is_regular

FrameSize = tuple[int, int, str]
"""Rows, columns and frame of reference."""


class Orphans:
    """A few slices each, of which other series may have lost them.

    Args:
        found: Series; the others among them are not kept.
    """

    def __init__(self, found: Iterable[Series] = ()) -> None:
        self._all: Spool[Series] = Spool()
        self._sizes: set[FrameSize] = set()
        self._by_size: dict[FrameSize, list[Series]] = defaultdict(list)
        for each in found:
            self.add(each)
        self.choose()

    def add(self, series: Series) -> None:
        """Add a series with few slices; of a larger one, note their size."""
        if len(series.frames) >= FEWEST_SLICES:
            self._sizes.add(get_size(series.frames[0]))
        elif series.frames:
            self._all.append(series)

    def choose(self) -> None:
        """Keep those of the sizes that larger series have, once all were added."""
        for each in self._all:
            size = get_size(each.frames[0])
            if size in self._sizes:
                self._by_size[size].append(each)

    @property
    def sizes(self) -> Set[FrameSize]:
        """Those of them."""
        return self._by_size.keys()

    def may_continue(self, group: HeaderGroup) -> bool:
        """Tell whether the slices of a group have the size of any."""
        for header in group.headers:
            for frame in header.frames[:1]:
                if get_size(frame) in self._by_size:
                    return True
        return False

    def warn(self, series: Series) -> Series:
        """Return a series, with a warning if a few slices of another one continue it."""
        if len(series.frames) < FEWEST_SLICES:
            return series
        count = 0
        for orphan in self._by_size.get(get_size(series.frames[0]), ()):
            if _continues(series, orphan):
                count += len(orphan.frames)
        if not count:
            return series
        warning = (
            f"{count} slice(s) of another series continue this one at its end, in the same "
            "place and of the same size; if they belong to it, the scan is incomplete"
        )
        return replace(series, warnings=(*series.warnings, warning))


def get_size(frame: Frame) -> FrameSize:
    """Return what slices share that continue each other."""
    return frame.rows, frame.columns, frame.frame_of_reference


def _continues(series: Series, orphan: Series) -> bool:
    """Tell whether a stack is a larger regular one with the slices of another series."""
    if (series.study, series.uid) == (orphan.study, orphan.uid):
        return False
    first = series.frames[0]
    are_near = bool(first.frame_of_reference) or (
        series.files[0].parent == orphan.files[0].parent
    )
    if not are_near or not are_parallel(first, orphan.frames[0]):
        return False
    return is_regular([*series.frames, *orphan.frames])
