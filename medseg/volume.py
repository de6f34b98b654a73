"""``Volume``: voxels and where they lie in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from medseg.affines import Affine as Affine
from medseg.affines import (
    find_turn,
    largest_corner_distance,
    make_affine,
    parse_numbers,
)
from medseg.errors import GeometryError, ScanError
from medseg.padding import Padding, replace_nonfinite

Array = npt.NDArray[Any]

_SMALLEST_VOXEL_MM3 = 1e-12
_SAME_GRID_MM = 1e-2


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """One image in memory: its voxels, and where they lie in the patient.

    Attributes:
        array: Shape ``(channels, i, j, k)``. A picture is one slice, ``k = 1``, with ``i``
            along its columns (left to right) and ``j`` along its rows (top to bottom).
            CT is in HU, PET in the units the file declares; label maps are integers.
        affine: 4×4, voxel index → patient position in mm, RAS+ (NIfTI convention).
            A tilted gantry's shear is kept.
        source: What people call this volume: a file or folder name. Never written to logs
            or results by medseg.
        warnings: What a reader had to leave out or repair, in plain words. Results record
            them, so they name no file and quote no header.
        header: Facts a writer of the same kind needs again (the NIfTI header, the DICOM
            instances by slice). Opaque to everything else.
        modalities: DICOM's code of each channel's modality, such as ``CT``, where its file
            states it, else an empty text; nothing where no file does.
        is_picture: Whether it was read from a picture, which knows no patient space, or from a
            file of volumes; ``None`` where no file was read.
        regions: Regions of the body that its header names, such as ``abdomen``; nothing where no
            header does.
        padding: The voxels that show nothing, which statistics leave out; ``None`` where all show
            something.

    Examples:
        >>> affine = np.diag([-0.8, -0.8, 1.5, 1.0])
        >>> volume = Volume(np.zeros((1, 4, 5, 6), np.float32), affine)
        >>> volume.shape, volume.spacing
        ((4, 5, 6), (0.8, 0.8, 1.5))
    """

    array: Array
    affine: Affine
    source: str = ""
    warnings: tuple[str, ...] = ()
    header: Any = field(default=None, repr=False)
    modalities: tuple[str, ...] = ()
    is_picture: bool | None = None
    regions: tuple[str, ...] = ()
    padding: Padding | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or 0 in self.array.shape:
            raise GeometryError(
                "an array of shape (channels, i, j, k) without empty axes is needed, got "
                f"{self.array.shape}",
                source=self.source or None,
            )
        self._check_padding()
        affine = np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(
                "the affine must be 4×4 finite numbers",
                source=self.source or None,
            )
        if abs(np.linalg.det(affine[:3, :3])) < _SMALLEST_VOXEL_MM3:
            raise GeometryError(
                "the affine is singular, so voxels have no size; the file's geometry is broken",
                source=self.source or None,
            )
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)

    def _check_padding(self) -> None:
        if self.padding and self.padding.shape != self.array.shape:
            raise GeometryError(
                f"padding of shape {self.padding.shape} does not fit voxels of shape "
                f"{self.array.shape}",
                source=self.source or None,
            )

    @classmethod
    def from_numpy(
        cls,
        array: Array,
        affine: npt.ArrayLike | None = None,
        *,
        spacing: Sequence[float] | None = None,
        source: str = "",
    ) -> Self:
        """Make a volume of an array and its affine, or at least the size of its voxels.

        Args:
            array: Real numbers, shape ``(i, j)``, ``(i, j, k)`` or ``(channels, i, j, k)``;
                becomes float32. CT in HU. What a masked array masks counts as NaN.
            affine: 4×4, voxel index → patient position in mm, RAS+: nibabel's, not ITK's.
            spacing: Instead of an affine: mm along i, j and k (1 for one slice). The axes then
                run to the patient's right, front and head.
            source: What people call it.

        Returns:
            The volume; voxels that are NaN or infinite have the lowest value of their channel, with
            a warning.

        Raises:
            GeometryError: If not exactly one of affine and spacing is given, or it is invalid.
            ScanError: If the voxels are no real numbers, or a channel has no finite one.

        Examples:
            >>> Volume.from_numpy(np.zeros((4, 5, 6)), spacing=(0.8, 0.8, 1.5)).spacing
            (0.8, 0.8, 1.5)
        """
        name = source or "the array"
        voxels = np.asarray(array)
        if voxels.dtype.kind not in "buif":
            raise ScanError(
                f"real numbers are needed, got {voxels.dtype}", source=name
            )
        with np.errstate(over="ignore"):
            voxels = voxels.astype(np.float32)
        if isinstance(array, np.ma.MaskedArray):
            voxels[np.ma.getmaskarray(array)] = np.nan
        if voxels.ndim == 2:
            voxels = voxels[..., None]
        if voxels.ndim == 3:
            voxels = voxels[None]
        if (affine is None) == (spacing is None):
            raise GeometryError(
                "give either its affine or its spacing", source=name
            )
        if spacing is not None:
            affine = make_affine(spacing, voxels.shape[-1], name)
        volume = cls(voxels, parse_numbers(affine, name), source)
        channels_last = np.moveaxis(volume.array, 0, 3)
        padding, warnings = replace_nonfinite(channels_last, name)
        return replace(volume, warnings=warnings, padding=padding)

    @property
    def grid(self) -> Self:
        """The same grid and header, with voxels that are all 0 and take no memory."""
        nothing = np.broadcast_to(np.zeros(1, np.uint8), (1, *self.shape))
        return replace(self, array=nothing, padding=None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along i, j and k."""
        _, i, j, k = self.array.shape
        return i, j, k

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along i, j and k, in mm."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return i, j, k

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def get_shown(self, channel: int) -> Array:
        """Return a channel's voxels that are no padding, flat: those that statistics are of."""
        voxels: Array = self.array[channel]
        if not self.padding:
            return voxels.ravel(order="K")
        is_padding = self.padding.get_channel(channel)
        return voxels[~is_padding]

    def on_same_grid(
        self, other: Volume, tolerance_mm: float | None = None
    ) -> bool:
        """Tell whether every voxel of ``other`` lies where the same voxel of this one lies.

        Args:
            other: The volume to compare with.
            tolerance_mm: How far corners may be apart: 0.01 mm, or a tenth of a voxel where that is
                less. Files store positions with few digits.
        """
        if self.shape != other.shape:
            return False
        if tolerance_mm is None:
            tolerance_mm = self._tolerance_mm
        return self.grid_distance(other) <= tolerance_mm

    @property
    def _tolerance_mm(self) -> float:
        return min(_SAME_GRID_MM, 0.1 * min(self.spacing))

    def grid_distance(self, other: Volume) -> float:
        """Return the largest distance between equal corner voxels of two grids, in mm.

        The distance is that along one axis of the patient: corners that lie 3 mm apart to the
        right and 4 mm to the front are 4 mm apart.
        """
        return largest_corner_distance(self.affine, other.affine, self.shape)

    def require_same_grid(
        self, other: Volume, what: str, *, tolerance_mm: float | None = None
    ) -> None:
        """Make sure that ``other`` lies on this volume's grid.

        Args:
            other: The volume that should lie on it.
            what: What people call the two, as in ``"the label map and its scan"``. Names no file.
            tolerance_mm: As for ``on_same_grid``.

        Raises:
            GeometryError: If they differ in shape or in position; says which and by how much.

        Examples:
            >>> scan = Volume.from_numpy(np.zeros((4, 5, 6)), spacing=(1, 1, 2))
            >>> mask = Volume.from_numpy(np.zeros((4, 5, 6)), spacing=(1, 1, 2.5))
            >>> scan.require_same_grid(mask, "the scan and its mask")
            Traceback (most recent call last):
            medseg.errors.GeometryError: the scan and its mask have equal shapes but lie up to \
2.50 mm apart; both must lie on one grid
        """
        if self.shape != other.shape:
            raise GeometryError(
                f"{what} differ in shape: {self.shape} and {other.shape} voxels; both must lie on "
                "one grid",
                source=other.source or None,
            )
        if not self.on_same_grid(other, tolerance_mm):
            distance = self.grid_distance(other)
            decimals = 2 if distance > _SAME_GRID_MM else 5
            raise GeometryError(
                f"{what} have equal shapes but lie up to {distance:.{decimals}f} mm apart; both "
                "must lie on one grid",
                source=other.source or None,
            )

    def reorder_to_grid(
        self, other: Volume, what: str, *, tolerance_mm: float | None = None
    ) -> Volume:
        """Return ``other`` with its voxels in the order of this volume's grid.

        The same voxels may be stored along other axes, or from the other end of an axis; they are
        brought into order by their indices alone, and never interpolated.

        Args:
            other: The volume that should lie on this grid.
            what: As for ``require_same_grid``.
            tolerance_mm: As for ``on_same_grid``.

        Returns:
            ``other`` itself where its voxels are in this order already; else one without header.

        Raises:
            GeometryError: As ``require_same_grid``, if its voxels are not those of this grid in any
                order.

        Examples:
            >>> scan = Volume.from_numpy(np.zeros((4, 5, 6)), spacing=(1, 1, 2))
            >>> stored = np.array([[0, 0, -1, 3], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]])
            >>> mask = Volume.from_numpy(np.zeros((6, 5, 4)), stored)
            >>> scan.reorder_to_grid(mask, "the scan and its mask").shape
            (4, 5, 6)
        """
        if self.on_same_grid(other, tolerance_mm):
            return other
        reordered = _reorder_axes(other, self.affine)
        if not self.on_same_grid(reordered, tolerance_mm):
            # Of the volume as it is stored: its own shape and place are what a person knows.
            self.require_same_grid(other, what, tolerance_mm=tolerance_mm)
        return reordered

    def crop(self, box: tuple[slice, slice, slice]) -> Volume:
        """Return the part of the volume inside a box of its grid; its voxels are a view.

        It has no header: files are written of whole scans.

        Examples:
            >>> scan = Volume.from_numpy(np.zeros((4, 5, 6)), spacing=(1, 1, 2))
            >>> part = scan.crop((slice(1, 3), slice(0, 5), slice(2, 6)))
            >>> part.shape, part.affine[:3, 3].tolist()
            ((2, 5, 4), [1.0, 0.0, 4.0])
        """
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
        padding = self.padding
        if padding:
            inside = padding.get_mask()[:, *box]
            padding = Padding.from_mask(inside)
        return replace(
            self,
            array=self.array[:, *box],
            affine=affine,
            header=None,
            padding=padding,
        )

    def with_array(self, array: Array) -> Volume:
        """Return a volume on the same grid with other voxels, shape ``(channels, i, j, k)``.

        Raises:
            GeometryError: If the array does not fit the grid.
        """
        if array.shape[1:] != self.array.shape[1:]:
            raise GeometryError(
                f"an array of shape {self.array.shape[1:]} is needed, got {array.shape[1:]}"
            )
        is_alike = array.shape == self.array.shape
        padding = self.padding if is_alike else None
        return replace(self, array=array, padding=padding)


def _reorder_axes(volume: Volume, wanted: Affine) -> Volume:
    """Return a volume whose axes run as nearly along those of ``wanted`` as their order allows.

    Args:
        volume: The volume.
        wanted: 4×4; its columns are the directions.
    """
    turn = find_turn(volume.affine, wanted)
    if turn is None:
        return volume
    axes = np.argmax(np.abs(turn), axis=1)
    is_flipped = turn[range(3), axes] < 0
    flipped_axes = np.flatnonzero(is_flipped) + 1

    def reorder(stored: Array) -> Array:
        in_order = stored.transpose(0, *(axes + 1))
        return np.flip(in_order, tuple(flipped_axes.tolist()))

    array = reorder(volume.array)
    padding = volume.padding
    if padding:
        padding = Padding.from_mask(reorder(padding.get_mask()))
    shape = np.array(array.shape[1:])
    to_own_index = np.eye(4)
    to_own_index[:3, :3] = turn.T
    first_voxel = np.where(is_flipped, shape - 1, 0)
    to_own_index[:3, 3] = -turn.T @ first_voxel
    # A copy, because PyTorch takes no array that runs backwards.
    in_order = array.copy(order="K")
    affine = volume.affine @ to_own_index
    return replace(
        volume, array=in_order, affine=affine, header=None, padding=padding
    )
