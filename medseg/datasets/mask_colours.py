"""Colours and grey levels of label pictures that no label has: soft and JPEG edges.

Drawing programs smooth the edges of what they draw, and JPEG smears them, so that pictures hold
colours which nobody chose. A voxel goes to the label whose colour is nearest, by these rules:

* Up to ``NEAR`` from a label's colour, Euclidean in RGB (or grey levels), it is that colour, a
  little off: but not beyond half the way to the next label's, and only where labels lie at least
  ``SMALLEST_GAP`` apart. Label values such as 1, 2, 3 must be exact.
* Further off it is a soft edge. These are ``MOST_SOFT`` of a mask's voxels at most.
* Of what is not surely one label (within ``SURE``), the labels beside the voxel decide, so that no
  third label appears between two others.
* A colour that fills an area is a structure, not an edge, and is never taken for another.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from medseg.datasets.mask_codes import (
    NEAR,
    SMALLEST_GAP,
    Counts,
    Distances,
    KnownCodes,
    Mask,
    Points,
    find_level,
    find_solid,
    is_between,
    measure_distances,
    to_points,
)
from medseg.errors import ScanError
from medseg.volume import Array

MOST_SOFT = 0.02
"""Largest share of a mask's voxels that lie further than ``NEAR`` from every label's colour."""

FEWEST_BLENDS = 3
"""So many different colours that fill no area, far from those that do, show smoothed edges."""

JPEG_SUFFIXES = (".jpg", ".jpeg")

MOST_COLOURS = 20_000
"""A picture with more unknown colours is a photograph."""

ROUNDING = 4.0
"""How far off a colour is by conversion alone: pictures store luminance and chrominance."""

_FEWEST_OF_EDGES = 8
"""Fewer colours than this are rather labels that nobody named."""

FEWEST_TO_DOUBT = 20
_LARGE_SHARE = 0.1
"""An edge holds many colours: one with such a share of it must be a mixture of two labels."""

_REACH = 2
"""How far beside a voxel its neighbours are asked, in voxels."""


_DESCRIBED = re.compile(
    r"label: ([\d.]+)% of its voxels are up to .* and ([\d.]+)% further"
)


Places = tuple[Array, ...]
"""Positions of voxels along i, j and k."""


@dataclass(frozen=True, slots=True)
class EdgeShares:
    """How much of a mask has no label's exact colour.

    Attributes:
        near: Share of its voxels that are off by ``NEAR`` at most.
        soft: Share of its voxels that are further off.
    """

    near: float
    soft: float

    def describe(self) -> str:
        """Say how much of one mask this is."""
        return (
            f"label: {self.near:.3%} of its voxels are up to {NEAR:g} off a label's colour or grey "
            f"level, and {self.soft:.3%} further (soft or JPEG edges); each counts as the nearest "
            "label"
        )

    @classmethod
    def parse(cls, text: str) -> EdgeShares:
        """Return what ``describe`` said; ``EXACT`` of any other text."""
        match = _DESCRIBED.match(text)
        if match is None:
            return EXACT
        near, soft = map(float, match.groups())
        return cls(near / 100, soft / 100)


EXACT = EdgeShares(near=0.0, soft=0.0)
"""Every voxel has the very colour of a label."""


@dataclass(frozen=True, slots=True)
class SmearedMask:
    """A mask some of whose voxels have no label's value or colour.

    Attributes:
        codes: Value or packed colour of each voxel, ``(i, j, k)``.
        indices: Label indices as far as they are known, ``(i, j, k)``.
        unknown: The number that stands in ``indices`` for unknown.
        channels: 3 where codes are packed colours, else 1.
        is_jpeg: Whether it comes from a JPEG file.
    """

    codes: Array
    indices: Array
    unknown: int
    channels: int
    is_jpeg: bool = False

    def settle(self, index_of: Mapping[int, int]) -> EdgeShares:
        """Give unknown voxels the label of the nearest colour, in place.

        Voxels of colours that fill an area stay unknown.

        Args:
            index_of: Value or packed colour → label index.

        Returns:
            How many voxels were off, and by how much.

        Raises:
            ScanError: If too many lie between labels, or the picture is a photograph.
        """
        known = KnownCodes.from_mapping(index_of, self.channels)
        if self.channels == 1 and known.gaps.min() < SMALLEST_GAP:
            return EXACT  # numbers of classes: between two of them lie others
        places = np.nonzero(self.indices == self.unknown)
        unknown = _UnknownCodes.collect(self, places, known)
        is_edge = ~unknown.find_structures(self.is_jpeg)
        is_near = unknown.is_near
        soft = self._compute_share(unknown, is_edge & ~is_near)
        if soft > MOST_SOFT:
            if np.sum(~is_near) < _FEWEST_OF_EDGES:
                return EXACT  # they stay unknown and are named one by one
            raise ScanError(_explain_soft_edges(soft))
        self._put_nearest(places, unknown, is_edge & unknown.is_sure)
        self._ask_neighbours(places, unknown, is_edge & ~unknown.is_sure)
        near = self._compute_share(unknown, is_edge & is_near)
        return EdgeShares(near, soft)

    def _compute_share(self, unknown: _UnknownCodes, which: Mask) -> float:
        """Return the share of the mask's voxels that have some of the unknown codes."""
        voxels = unknown.voxels[which].sum()
        return float(voxels / self.codes.size)

    def _put_nearest(
        self, places: Places, unknown: _UnknownCodes, which: Mask
    ) -> None:
        """Give voxels with some of the codes the label of the nearest code."""
        chosen = which[unknown.of_voxel]
        own = unknown.of_voxel[chosen]
        targets = _select(places, chosen)
        self.indices[targets] = unknown.nearest_labels[own]

    def _ask_neighbours(
        self, places: Places, unknown: _UnknownCodes, which: Mask
    ) -> None:
        """Give voxels with some of the codes a label beside them: that of the nearest colour."""
        chosen = which[unknown.of_voxel]
        own = unknown.of_voxel[chosen]
        targets = _select(places, chosen)
        distances = unknown.measure_to_labels()
        nobody = distances.shape[1] - 1
        beside = self._look_beside(targets)
        beside[beside == self.unknown] = nobody
        costs = distances[own[:, None], beside]
        best = costs.argmin(axis=1)
        row = np.arange(len(best))
        labels = beside[row, best]
        is_alone = labels == nobody
        labels[is_alone] = unknown.nearest_labels[own[is_alone]]
        self.indices[targets] = labels

    def _look_beside(self, places: Places) -> Counts:
        """Return the indices around voxels, in their plane, shape ``(voxels, neighbours)``."""
        margins = [(_REACH, _REACH), (_REACH, _REACH), (0, 0)]
        padded = np.pad(self.indices, margins, constant_values=self.unknown)
        i, j, k = places
        steps = range(2 * _REACH + 1)
        columns = []
        for step_i, step_j in itertools.product(steps, steps):
            neighbour = padded[i + step_i, j + step_j, k]
            columns.append(neighbour.astype(np.int64))
        return np.stack(columns, axis=1)


@dataclass(frozen=True, slots=True)
class _UnknownCodes:
    """The codes of a mask that mean nothing, each once.

    Attributes:
        points: Each as a point.
        of_voxel: Which of them each unknown voxel has.
        voxels: How many voxels have each.
        solid: How many of these lie inside an area of this very code.
        level: How many lie inside an area that varies little.
        known: What they are compared with.
        distances: To each known code, shape ``(unknown, known)``.
    """

    points: Points
    of_voxel: Counts
    voxels: Counts
    solid: Counts
    level: Counts
    known: KnownCodes
    distances: Distances

    @classmethod
    def collect(
        cls, mask: SmearedMask, places: Places, known: KnownCodes
    ) -> _UnknownCodes:
        """Count the unknown codes of a mask.

        Raises:
            ScanError: If there are as many as in a photograph.
        """
        codes, of_voxel, voxels = np.unique(
            mask.codes[places],
            return_inverse=True,
            return_counts=True,
        )
        if len(codes) > MOST_COLOURS:
            raise ScanError(
                f"the label picture holds {len(codes)} colours that are no label's, as a "
                "photograph does; is it the image?"
            )
        counts = []
        for areas in (
            find_solid(mask.codes),
            find_level(mask.codes, mask.channels),
        ):
            inside = of_voxel[areas[places]]
            counts.append(np.bincount(inside, minlength=len(codes)))
        solid, level = counts
        points = to_points(codes, mask.channels)
        distances = measure_distances(points, known.points)
        return cls(points, of_voxel, voxels, solid, level, known, distances)

    @property
    def nearest(self) -> Counts:
        """Position of the nearest known code."""
        nearest: Counts = self.distances.argmin(axis=1)
        return nearest

    @property
    def nearest_labels(self) -> Counts:
        """Label index of the nearest known code."""
        labels: Counts = self.known.indices[self.nearest]
        return labels

    @property
    def distance(self) -> Distances:
        """Distance to the nearest known code."""
        shortest: Distances = self.distances.min(axis=1)
        return shortest

    @property
    def is_near(self) -> Mask:
        """Whether each is a known code, a little off."""
        return self._is_within(self.known.near_limits)

    @property
    def is_sure(self) -> Mask:
        """Whether it is one without any doubt."""
        return self._is_within(self.known.sure_limits)

    def _is_within(self, limits: Distances) -> Mask:
        within: Mask = self.distance <= limits[self.nearest]
        return within

    def find_structures(self, is_jpeg: bool) -> Mask:
        """Tell which codes are structures of their own rather than edges."""
        is_sure = self.is_sure
        fills_an_area = self.solid > 0
        structures: Mask = fills_an_area & ~is_sure
        structures |= (self.level > 0) & ~self.is_near
        structures |= self._find_unmixed()
        if self.points.shape[1] == 1 and not is_jpeg:
            # What JPEG leaves beside a grey level are rims; an area was drawn.
            structures |= 2 * self.solid > self.voxels
        blends = np.sum(~is_sure & ~fills_an_area)
        if is_jpeg or blends >= FEWEST_BLENDS:
            return structures
        # Where nothing is smeared, what is a little off was drawn so.
        drawn = is_sure | (self.voxels >= FEWEST_TO_DOUBT)
        if self.points.shape[1] > 1:
            drawn &= self.distance > ROUNDING
        return structures | drawn

    def _find_unmixed(self) -> Mask:
        """Tell which codes have a large share of the soft edges, and are no mixture of labels."""
        is_soft = ~self.is_near
        soft_voxels = self.voxels[is_soft].sum()
        least = max(FEWEST_TO_DOUBT, _LARGE_SHARE * soft_voxels)
        doubtful: Mask = is_soft & (self.voxels >= least)
        for number in np.flatnonzero(doubtful):
            point = self.points[number]
            doubtful[number] = not is_between(point, self.known.points)
        return doubtful

    def measure_to_labels(self) -> Distances:
        """Return the distance to each label, shape ``(unknown, labels + 1)``; the last is none."""
        labels = int(self.known.indices.max()) + 1
        shape = (len(self.points), labels + 1)
        to_labels = np.full(shape, np.inf, np.float32)
        known = zip(self.known.indices, self.distances.T, strict=True)
        for index, distance in known:
            nearest = to_labels[:, index]
            np.minimum(nearest, distance, out=nearest)
        return to_labels


def _select(places: Places, which: Mask) -> Places:
    return tuple(axis[which] for axis in places)


def _explain_soft_edges(share: float) -> str:
    return (
        f"{share:.1%} of the mask's voxels lie between the labels' colours, over {NEAR:g} from "
        f"each; up to {MOST_SOFT:.0%} are taken for soft edges. It was resized or drawn with "
        "smoothing, or saved as JPEG: save it as PNG, without smoothing; or, where these are "
        "structures, name their colours"
    )


def describe_edges(
    shares: Mapping[str, EdgeShares], masks: int
) -> Iterable[str]:
    """Say how much of a data set's masks went to the nearest label, and name the worst mask.

    Args:
        shares: Of each mask, by case.
        masks: How many masks there are.
    """
    if not shares:
        return
    worst = max(shares, key=lambda name: (shares[name].soft, shares[name].near))
    near = sum(share.near for share in shares.values()) / masks
    soft = sum(share.soft for share in shares.values()) / masks
    yield (
        f"{len(shares)} of {masks} masks hold colours or grey levels that are no label's, as soft "
        f"and JPEG edges do: {near:.2%} of all voxels are off by {NEAR:g} at most, {soft:.2%} by "
        f"more. Each counts as the nearest label. Most in {worst}: {shares[worst].near:.2%} "
        f"and {shares[worst].soft:.2%}"
    )
