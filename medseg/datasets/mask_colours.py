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

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.datasets.mask_codes import (
    NEAR,
    KnownCodes,
    Mask,
    Points,
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

_MOST_COLOURS = 20_000
"""A picture with more unknown colours is a photograph."""

_ROUNDING = 4.0
"""How far off a colour is by conversion alone: pictures store luminance and chrominance."""

_FEWEST_OF_EDGES = 8
"""Fewer colours than this are rather labels that nobody named."""

_FEWEST_TO_DOUBT = 20
_LARGE_SHARE = 0.1
"""An edge holds many colours: one with such a share of it must be a mixture of two labels."""

_REACH = 2
"""How far beside a voxel its neighbours are asked, in voxels."""


_DESCRIBED = re.compile(
    r"label: ([\d.]+)% of its voxels are up to .* and ([\d.]+)% further"
)


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
        places = np.nonzero(self.indices == self.unknown)
        unknown_codes = _UnknownCodes.collect(self, places, known)
        is_foreign = unknown_codes.find_structures(self.is_jpeg)
        of_voxel = unknown_codes.of_voxel
        is_settled = ~is_foreign[of_voxel]
        is_near = unknown_codes.is_near[of_voxel]
        size = self.codes.size
        soft = float(np.sum(is_settled & ~is_near) / size)
        if soft > MOST_SOFT:
            if np.sum(~unknown_codes.is_near) < _FEWEST_OF_EDGES:
                return EXACT  # they stay unknown and are named one by one
            raise ScanError(_explain_soft_edges(soft))
        nearest = known.indices[unknown_codes.nearest[of_voxel]]
        is_sure = unknown_codes.is_sure[of_voxel]
        _put(self.indices, places, nearest, is_settled & is_sure)
        is_open = is_settled & ~is_sure
        chosen = self._ask_neighbours(places, unknown_codes, is_open, nearest)
        _put(self.indices, places, chosen, is_open)
        return EdgeShares(float(np.sum(is_settled & is_near) / size), soft)

    def _ask_neighbours(
        self,
        places: tuple[Array, ...],
        unknown_codes: _UnknownCodes,
        is_open: Mask,
        nearest: Array,
    ) -> Array:
        """Return the label of each open voxel: of those beside it, the one of nearest colour."""
        beside = self._look_beside(tuple(axis[is_open] for axis in places))
        distances = unknown_codes.measure_to_labels()
        nobody = distances.shape[1] - 1
        beside[beside == self.unknown] = nobody
        own = unknown_codes.of_voxel[is_open]
        costs = distances[own[:, None], beside]
        best = costs.argmin(axis=1)[:, None]
        label = np.take_along_axis(beside, best, axis=1)[:, 0]
        chosen = nearest.copy()
        chosen[is_open] = np.where(label == nobody, nearest[is_open], label)
        return chosen

    def _look_beside(self, places: tuple[Array, ...]) -> Array:
        """Return the indices around voxels, in their plane, shape ``(voxels, neighbours)``."""
        margins = [(_REACH, _REACH), (_REACH, _REACH), (0, 0)]
        padded = np.pad(self.indices, margins, constant_values=self.unknown)
        i, j, k = places
        steps = np.arange(2 * _REACH + 1)
        rows = i[:, None, None] + steps[:, None]
        columns = j[:, None, None] + steps
        around = padded[rows, columns, k[:, None, None]]
        neighbours = steps.size**2
        return around.reshape(len(i), neighbours).astype(np.int64)


@dataclass(frozen=True, slots=True)
class _UnknownCodes:
    """The codes of a mask that mean nothing, each once.

    Attributes:
        points: Each as a point.
        of_voxel: Which of them each unknown voxel has.
        voxels: How many voxels have each.
        solid: How many of these lie inside an area of this very code.
        known: What they are compared with.
        distances: To each known code, shape ``(unknown, known)``.
    """

    points: Points
    of_voxel: npt.NDArray[np.int64]
    voxels: npt.NDArray[np.int64]
    solid: npt.NDArray[np.int64]
    known: KnownCodes
    distances: npt.NDArray[np.float32]

    @classmethod
    def collect(
        cls, mask: SmearedMask, places: tuple[Array, ...], known: KnownCodes
    ) -> _UnknownCodes:
        """Count the unknown codes of a mask.

        Raises:
            ScanError: If there are as many as in a photograph.
        """
        codes, of_voxel, voxels = np.unique(
            mask.codes[places], return_inverse=True, return_counts=True
        )
        if len(codes) > _MOST_COLOURS:
            raise ScanError(
                f"the label picture holds {len(codes)} colours that are no label's, as a "
                "photograph does; is it the image?"
            )
        is_solid = find_solid(mask.codes)[places]
        solid = np.bincount(of_voxel[is_solid], minlength=len(codes))
        points = to_points(codes, mask.channels)
        distances = measure_distances(points, known.points)
        return cls(points, of_voxel, voxels, solid, known, distances)

    @property
    def nearest(self) -> npt.NDArray[np.int64]:
        """Position of the nearest known code."""
        nearest: npt.NDArray[np.int64] = self.distances.argmin(axis=1)
        return nearest

    @property
    def distance(self) -> npt.NDArray[np.float32]:
        """Distance to the nearest known code."""
        shortest: npt.NDArray[np.float32] = self.distances.min(axis=1)
        return shortest

    @property
    def is_near(self) -> Mask:
        """Whether each is a known code, a little off."""
        return self._is_within(self.known.near_limits)

    @property
    def is_sure(self) -> Mask:
        """Whether it is one without any doubt."""
        return self._is_within(self.known.sure_limits)

    def _is_within(self, limits: npt.NDArray[np.float32]) -> Mask:
        within: Mask = self.distance <= limits[self.nearest]
        return within

    def find_structures(self, is_jpeg: bool) -> Mask:
        """Tell which codes are structures of their own rather than edges."""
        is_sure = self.is_sure
        fills_an_area = self.solid > 0
        structures: Mask = fills_an_area & ~is_sure
        structures |= self._find_unmixed()
        blends = np.sum(~is_sure & ~fills_an_area)
        if is_jpeg or blends >= FEWEST_BLENDS:
            return structures
        # Where nothing is smeared, what is a little off was drawn so.
        drawn = is_sure | (self.voxels >= _FEWEST_TO_DOUBT)
        if self.points.shape[1] > 1:
            drawn &= self.distance > _ROUNDING
        return structures | drawn

    def _find_unmixed(self) -> Mask:
        """Tell which codes have a large share of the soft edges, and are no mixture of labels."""
        is_soft = ~self.is_near
        soft_voxels = self.voxels[is_soft].sum()
        least = max(_FEWEST_TO_DOUBT, _LARGE_SHARE * soft_voxels)
        doubtful: Mask = is_soft & (self.voxels >= least)
        for number in np.flatnonzero(doubtful):
            point = self.points[number]
            doubtful[number] = not is_between(point, self.known.points)
        return doubtful

    def measure_to_labels(self) -> npt.NDArray[np.float32]:
        """Return the distance to each label, shape ``(unknown, labels + 1)``; the last is none."""
        labels = int(self.known.indices.max()) + 1
        shape = (len(self.points), labels + 1)
        distances = np.full(shape, np.inf, np.float32)
        for position, index in enumerate(self.known.indices):
            of_label = distances[:, index]
            np.minimum(of_label, self.distances[:, position], out=of_label)
        return distances


def _put(
    indices: Array, places: tuple[Array, ...], labels: Array, which: Mask
) -> None:
    chosen = tuple(axis[which] for axis in places)
    indices[chosen] = labels[which]


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
