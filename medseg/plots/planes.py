"""Volumes → slices as people look at them.

Volumes are shown in the radiological convention: the patient's right is on the left of the
picture, anterior is up in axial planes and on the left in sagittal ones, superior is up. The
planes are those of the grid that lie nearest to the patient's, with the right proportions. A
picture (one slice, ``k = 1``) is shown as people see it: ``i`` to the right, ``j`` down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medseg.volume import Affine, Array, Volume

_SAMPLED_VOXELS = 2e5


@dataclass(frozen=True, slots=True)
class Plane:
    """One plane of an oriented grid, or a picture.

    Attributes:
        name: ``axial``, ``coronal``, ``sagittal``, or nothing for a picture.
        axis: The axis it cuts.
        index: Where.
        size: Width and height in mm.
    """

    name: str
    axis: int
    index: int
    size: tuple[float, float]

    def extract(self, array: Array) -> Array:
        """Return rows × columns (× colours) as on a screen.

        Args:
            array: Oriented, shape ``(i, j, k)`` or ``(i, j, k, colours)``.
        """
        # Not np.take, which copies the whole of an array that is turned.
        plane: Array = np.moveaxis(array, self.axis, 0)[self.index]
        plane = plane.swapaxes(0, 1)
        # RAS+ axes run to the right and up; the picture's run to the patient's left and down.
        return plane[::-1, ::-1] if self.name else plane


@dataclass(frozen=True, slots=True, eq=False)
class DisplayOrientation:
    """How a grid is turned so that its axes run right, anterior and superior.

    Attributes:
        shape: Voxels along the turned axes.
        spacing: Their sizes in mm.
        orientation: Axis and direction of each axis of the file, as nibabel states them; ``None``
            for a picture, which is not turned.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    orientation: Array | None

    @classmethod
    def from_grid(
        cls, affine: Affine, shape: tuple[int, int, int]
    ) -> DisplayOrientation:
        """Return how to show a grid with this affine (RAS+) and this shape."""
        from nibabel.orientations import io_orientation

        i, j, k = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0).tolist()
        spacing = (i, j, k)
        if shape[2] == 1:
            return cls(shape, spacing, None)
        orientation = io_orientation(affine)
        right, anterior, superior = np.argsort(orientation[:, 0])
        return cls(
            (shape[right], shape[anterior], shape[superior]),
            (spacing[right], spacing[anterior], spacing[superior]),
            orientation,
        )

    def orient(self, array: Array) -> Array:
        """Return a turned view of an array, ``(i, j, k)`` or ``(i, j, k, colours)``."""
        from nibabel.orientations import apply_orientation

        if self.orientation is None:
            return array
        turned: Array = apply_orientation(array, self.orientation)
        return turned

    def planes(self, labels: Array) -> list[Plane]:
        """Return the planes with most labelled voxels, axial first; the middle if none has any.

        Args:
            labels: Oriented label indices, shape ``(i, j, k)``.
        """
        right, anterior, superior = np.multiply(
            self.shape, self.spacing
        ).tolist()
        if self.orientation is None:
            return [Plane("", 2, 0, (right, anterior))]
        is_labelled = labels > 0
        return [
            Plane(
                "axial", 2, _fullest_slice(is_labelled, 2), (right, anterior)
            ),
            Plane(
                "coronal", 1, _fullest_slice(is_labelled, 1), (right, superior)
            ),
            Plane(
                "sagittal",
                0,
                _fullest_slice(is_labelled, 0),
                (anterior, superior),
            ),
        ]


@dataclass(frozen=True, slots=True, eq=False)
class ShownPlane:
    """A plane of a segmented scan, turned as radiologists see it.

    Attributes:
        plane: Which.
        image: Its rows and columns, as ``select_display_channels`` has channels.
        labels: The same of label indices.
        window: Of intensities, of the whole scan.
    """

    plane: Plane
    image: Array
    labels: Array
    window: tuple[float, float]


def show_planes(volume: Volume, labels: Array) -> list[ShownPlane]:
    """Return the planes of a scan with most labelled voxels, or the one slice of a picture.

    Args:
        volume: Shape ``(channels, i, j, k)``.
        labels: Label indices on its grid, shape ``(i, j, k)``.
    """
    image = select_display_channels(volume.array)
    window = compute_intensity_window(image)
    display = DisplayOrientation.from_grid(volume.affine, volume.shape)
    oriented_image = display.orient(image)
    oriented_labels = display.orient(labels)
    return [
        ShownPlane(
            plane,
            plane.extract(oriented_image),
            plane.extract(oriented_labels),
            window,
        )
        for plane in display.planes(oriented_labels)
    ]


def _fullest_slice(is_labelled: Array, axis: int) -> int:
    """Return the index with most labelled voxels along an axis; the middle if none has any."""
    others = tuple({0, 1, 2} - {axis})
    areas = is_labelled.sum(axis=others)
    return int(areas.argmax()) if areas.any() else len(areas) // 2


def select_display_channels(image: Array) -> Array:
    """Return what of an image is shown: a colour picture's colours, else the first channel.

    Args:
        image: Shape ``(channels, i, j, k)``.

    Returns:
        Shape ``(i, j, k, 3)`` or ``(i, j, k)``.
    """
    is_colour_picture = image.shape[0] == 3 and image.shape[3] == 1
    if is_colour_picture:
        return np.moveaxis(image, 0, -1)
    first: Array = image[0]
    return first


def compute_intensity_window(image: Array) -> tuple[float, float]:
    """Return the 1st and the 99th percentile of the finite intensities, from a sample of them.

    The second number is always above the first.
    """
    voxels_per_sample = image.size / _SAMPLED_VOXELS
    step = max(1, round(voxels_per_sample ** (1 / 3)))
    sample = image[::step, ::step, ::step]
    is_finite = np.isfinite(sample)
    sample = sample[is_finite].astype(np.float64)
    if not sample.size:
        return 0.0, 1.0
    low, high = np.percentile(sample, (1, 99)).tolist()
    if low == high:
        low, high = float(sample.min()), float(sample.max())
    if low == high:
        return low - 0.5, low + 0.5
    return low, high
