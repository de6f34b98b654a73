"""The values and colours of all masks of a data set, counted before anything is planned.

Most colours of smoothed and JPEG masks mean nothing. Those that do are told by this: somewhere in
the data set they fill an area.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medseg.datasets.cases import Case
from medseg.datasets.mask_codes import (
    NEAR,
    SMALLEST_GAP,
    SURE,
    Counts,
    Mask,
    Points,
    find_level,
    find_solid,
    is_between,
    measure_distances,
    pack,
    to_points,
)
from medseg.datasets.mask_colours import (
    FEWEST_BLENDS,
    FEWEST_TO_DOUBT,
    JPEG_SUFFIXES,
    MOST_COLOURS,
    ROUNDING,
)
from medseg.errors import DatasetError, ScanError
from medseg.events import Listener, Progress, notify
from medseg.io import read_labels
from medseg.io.pictures import read_palette
from medseg.labels import BRIGHTEST, RGB
from medseg.names import is_picture
from medseg.volume import Array

TASK = "counting label values"
"""The name under which progress is reported."""

_MOST_WORKERS = 4

_FEWEST_SOLID = 9
"""Voxels inside areas of a colour of smeared masks from which on it is a label."""


@dataclass(frozen=True, slots=True)
class MaskCodes:
    """The values or packed colours of one mask.

    Attributes:
        case: Its case's name.
        is_colour: Whether codes are packed colours.
        codes: Each once, in order.
        voxels: How many have each.
        solid: How many of these lie inside an area of this very code.
        level: How many lie inside an area that varies little.
        palette: Value → colour, where the mask is a picture with a palette.
    """

    case: str
    is_colour: bool
    codes: Counts
    voxels: Counts
    solid: Counts
    level: Counts
    palette: Mapping[int, RGB] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MaskCensus:
    """What all masks of a data set hold.

    Attributes:
        masks: Each mask that can be read.
        is_colour: Whether codes are packed colours: one mask in colours is enough.
        are_pictures: Whether masks are pictures, so that some of it may be smeared.
        has_jpeg: Whether some are JPEG files.
        codes: Each code that occurs, in order.
        voxels: How many voxels of all masks have each.
        solid: How many of these lie inside an area of this very code.
        level: How many lie inside an area that varies little.
        palette: Value → colour by the masks' palettes, of the values that occur.
    """

    masks: tuple[MaskCodes, ...]
    is_colour: bool
    are_pictures: bool
    has_jpeg: bool
    codes: Counts
    voxels: Counts
    solid: Counts
    level: Counts
    palette: Mapping[int, RGB]

    @property
    def channels(self) -> int:
        """3 where codes are packed colours, else 1."""
        return 3 if self.is_colour else 1

    def count_voxels(self, code: int) -> int:
        """Return how many voxels have a code."""
        return int(self.voxels[self.codes == code].sum())

    def find_holders(self, code: int) -> list[str]:
        """Return the names of the cases whose masks hold a code."""
        return [mask.case for mask in self.masks if code in mask.codes]

    def find_labels(self, known: Collection[int] = ()) -> list[int]:
        """Return the codes that mean something, in order; others are soft or JPEG edges.

        Args:
            known: Codes that somebody named; where two are close, they count first.
        """
        codes: list[int] = self.codes.tolist()
        has_levels = self.is_colour or max(codes, default=0) <= BRIGHTEST
        if not (codes and self.are_pictures and has_levels):
            return codes
        points = to_points(self.codes, self.channels)
        fills_areas = self.solid > 0
        to_areas = measure_distances(points, points[fills_areas])
        nearest_area = to_areas.min(axis=1, initial=np.inf)
        blends = (nearest_area > SURE) & ~fills_areas
        if self.has_jpeg or blends.sum() >= FEWEST_BLENDS:
            peaks = sorted(self._find_peaks(points, known))
            steps = np.diff(peaks)
            are_numbers = np.any(steps < SMALLEST_GAP) and not self.is_colour
            return codes if are_numbers else peaks
        if not self.is_colour:
            return codes
        return sorted(self._find_drawn(points, known))

    def _find_peaks(self, points: Points, known: Collection[int]) -> list[int]:
        """Return the most frequent codes that fill areas and lie apart from each other."""
        found: list[int] = []
        nearest = np.full(len(points), np.inf)
        is_area = self.solid >= _FEWEST_SOLID
        is_area |= np.isin(self.codes, list(known)) & (self.solid > 0)
        if self.is_colour or self.has_jpeg:
            is_rim = np.ones(len(points), np.bool_)
        else:
            # What was a JPEG once has rims beside its grey levels, not areas.
            is_rim = 2 * self.solid <= self.voxels
        for place in self._order(known):
            (distances,) = measure_distances(points[[place]], points)
            mass = self.level[distances <= SURE].sum()
            is_apart = nearest[place] > NEAR and mass >= _FEWEST_SOLID
            is_drawn = nearest[place] > SURE or not is_rim[place]
            if is_apart or (is_area[place] and is_drawn):
                found.append(int(self.codes[place]))
                nearest = np.minimum(nearest, distances)
        return found

    def _order(self, known: Collection[int]) -> Counts:
        """Return the places of codes: named ones first, then frequent ones; single voxels none."""
        is_named = np.isin(self.codes, list(known))
        order = np.lexsort((-self.voxels, ~is_named))
        fills_areas = (self.solid > 0) | (self.level > 0)
        areas: Counts = order[fills_areas[order]]
        return areas

    def _find_drawn(self, points: Points, known: Collection[int]) -> list[int]:
        """Return all colours but those that differ by rounding, and single voxels on edges."""
        fills_areas = self.solid > 0
        is_label = np.ones(len(points), np.bool_)
        strays = ~fills_areas & (self.voxels < FEWEST_TO_DOUBT)
        for place in np.flatnonzero(strays):
            is_blend = is_between(points[place], points[fills_areas])
            is_label[place] = not is_blend
        return self._drop_roundings(points, known, is_label)

    def _drop_roundings(
        self, points: Points, known: Collection[int], is_label: Mask
    ) -> list[int]:
        """Return codes without those that differ from a more frequent one by rounding."""
        is_named = np.isin(self.codes, list(known))
        found: list[int] = []
        for place in np.lexsort((-self.voxels, ~is_named)):
            if is_label[place]:
                found.append(int(self.codes[place]))
                (distances,) = measure_distances(points[[place]], points)
                is_label = is_label & (distances > ROUNDING)
        return found


def count_codes(
    cases: Sequence[Case], listeners: Iterable[Listener] = ()
) -> MaskCensus:
    """Count the values or colours of all masks; those that cannot be read are left out.

    Args:
        cases: The cases; masks that are put together of several files are left out, too.
        listeners: Told of progress, in the calling thread.
    """
    listeners = tuple(listeners)
    single = [case for case in cases if case.label_source is None]
    masks = []
    notify(listeners, Progress(TASK, 0, len(single)))
    workers = min(_MOST_WORKERS, max(2, os.cpu_count() or 2))
    with ThreadPoolExecutor(workers, thread_name_prefix=TASK) as pool:
        counted = pool.map(_count_codes_of, single)
        for done, mask in enumerate(counted, start=1):
            if mask is not None:
                masks.append(mask)
            notify(listeners, Progress(TASK, done, len(single)))
    files = [case.label for case in single]
    return _sum_up(masks, files)


def _count_codes_of(case: Case) -> MaskCodes | None:
    try:
        array = read_labels(case.label).array
    except ScanError:
        return None  # the inspection of the case says why
    is_colour = len(array) == 3
    all_codes, all_voxels, all_solid, all_level = [], [], [], []
    for k in range(array.shape[-1]):
        plane = array[..., [k]]
        codes = pack(plane.astype(np.uint32)) if is_colour else plane[0]
        unique, voxels = np.unique(codes, return_counts=True)
        if len(unique) > MOST_COLOURS:
            return None
        all_codes.append(unique.astype(np.int64))
        all_voxels.append(voxels)
        in_solid = find_solid(codes)
        in_level = find_level(codes, len(array))
        all_solid.append(_count_inside(codes, in_solid, unique))
        all_level.append(_count_inside(codes, in_level, unique))
    every_code, voxels = _add_up(all_codes, all_voxels)
    _, solid = _add_up(all_codes, all_solid)
    _, level = _add_up(all_codes, all_level)
    palette = {}
    if is_picture(case.label):
        colours = read_palette(case.label)
        used = [code for code in every_code.tolist() if code < len(colours)]
        palette = {code: colours[code] for code in used}
    return MaskCodes(
        case=case.name,
        is_colour=is_colour,
        codes=every_code,
        voxels=voxels,
        solid=solid,
        level=level,
        palette=palette,
    )


def _count_inside(codes: Array, areas: Mask, unique: Counts) -> Counts:
    """Return how many voxels of each code lie inside areas."""
    inside = np.zeros(len(unique), np.int64)
    filling, counts = np.unique(codes[areas], return_counts=True)
    place = np.searchsorted(unique, filling)
    inside[place] = counts
    return inside


def _add_up(
    codes: Sequence[Counts], counts: Sequence[Counts]
) -> tuple[Counts, Counts]:
    """Return each code once, in order, and the sum of its counts."""
    nothing = np.zeros(0, np.int64)
    joined = np.concatenate([nothing, *codes])
    unique, place = np.unique(joined, return_inverse=True)
    weights = np.concatenate([nothing, *counts])
    sums = np.bincount(place, weights, minlength=len(unique))
    return unique, sums.astype(np.int64)


def _sum_up(masks: Sequence[MaskCodes], files: Sequence[Path]) -> MaskCensus:
    is_colour = any(mask.is_colour for mask in masks)
    if is_colour:
        masks = [_as_colours(mask) for mask in masks]
    every_code = [mask.codes for mask in masks]
    codes, voxels = _add_up(every_code, [mask.voxels for mask in masks])
    _, solid = _add_up(every_code, [mask.solid for mask in masks])
    _, level = _add_up(every_code, [mask.level for mask in masks])
    return MaskCensus(
        masks=tuple(masks),
        is_colour=is_colour,
        are_pictures=all(is_picture(file) for file in files),
        has_jpeg=any(file.suffix.lower() in JPEG_SUFFIXES for file in files),
        codes=codes,
        voxels=voxels,
        solid=solid,
        level=level,
        palette=_join_palettes(masks),
    )


def _join_palettes(masks: Sequence[MaskCodes]) -> dict[int, RGB]:
    """Return value → colour of all masks.

    Raises:
        DatasetError: If masks have different colours for one value: then values mean nothing.
    """
    palette: dict[int, RGB] = {}
    for mask in masks:
        for value, colour in mask.palette.items():
            first = palette.setdefault(value, colour)
            if first != colour:
                raise DatasetError(
                    f"the masks' palettes differ: the value {value} is {first} in one and {colour} "
                    "in another, so values do not say what is where; save the masks in true "
                    "colours (RGB)",
                    detail=mask.case,
                )
    return palette


def _as_colours(mask: MaskCodes) -> MaskCodes:
    """Return a mask whose greys are colours."""
    if mask.is_colour:
        return mask
    grey = mask.codes
    return replace(mask, is_colour=True, codes=pack((grey, grey, grey)))
