"""What counts as a click: three finite numbers that lie inside the scan, and not too many of them.

Clicks come as voxel indices ``(i, j, k)`` of the scan's own array, as 3D Slicer (IJK) and OHIF send
them, or in millimetres in the patient (RAS+); all are kept as voxel indices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medseg.errors import ScanError
from medseg.volume import Volume

Space = Literal["voxel", "ras"]
"""What the numbers of a click are: voxel indices, or mm to the patient's right, front and head."""

Points = npt.NDArray[np.float64]
"""Voxel indices ``(n, 3)`` of a scan."""

MOST_CLICKS = 500
"""Clicks on one label, inside or outside; far more than anybody makes."""

_WANTED = "a click is three numbers, the voxel's indices along i, j and k"
_SPACES = ("voxel", "ras")


def parse_clicks(
    clicks: Any, scan: Volume, what: str = "clicks", space: Space = "voxel"
) -> Points:
    """Return clicks as voxel indices of a scan.

    Args:
        clicks: A list of points, or an array ``(n, 3)``. In a scan of one slice two numbers do.
        scan: The scan, or its grid.
        what: What errors call them.
        space: What the numbers are.

    Raises:
        ScanError: If they are something else, or lie outside the scan.
    """
    if space not in _SPACES:
        raise ScanError("the space of clicks is 'voxel' or 'ras'")
    if isinstance(clicks, np.ndarray):
        clicks = clicks.tolist()
    if not isinstance(clicks, Sequence) or isinstance(clicks, str | bytes):
        raise ScanError(f"{what} must be a list; {_WANTED}")
    if len(clicks) > MOST_CLICKS:
        raise ScanError(
            f"{what}: {len(clicks)} were sent, and {MOST_CLICKS} are the most on one label"
        )
    points = np.empty((len(clicks), 3))
    for row, click in zip(points, clicks, strict=True):
        row[:] = _parse_point(click, what, scan.shape[2] == 1)
    if space == "ras":
        points = _to_voxels(points, scan)
    _refuse_outside(points, scan, what)
    return points


def _parse_point(click: Any, what: str, is_slice: bool) -> list[float]:
    if isinstance(click, np.ndarray):
        click = click.tolist()
    is_list = isinstance(click, Sequence) and not isinstance(click, str | bytes)
    if not is_list or not all(_is_finite(number) for number in click):
        raise ScanError(f"{what}: {_WANTED}, and these are finite numbers")
    if len(click) == 2 and is_slice:
        return [*click, 0.0]
    if len(click) != 3:
        raise ScanError(f"{what}: {_WANTED}; {len(click)} numbers were sent")
    return list(click)


def _is_finite(number: Any) -> bool:
    is_number = isinstance(number, int | float | np.number)
    if not is_number or isinstance(number, bool):
        return False
    try:
        return math.isfinite(number)
    except OverflowError:  # whole numbers know no bound
        return False


def _to_voxels(points: Points, scan: Volume) -> Points:
    to_voxel = np.linalg.inv(scan.affine)
    voxels: Points = points @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    return voxels


def _refuse_outside(points: Points, scan: Volume, what: str) -> None:
    """Refuse clicks that are in no voxel: a voxel reaches half its size from its centre."""
    last = np.array(scan.shape) - 1
    is_outside = ((points < -0.5) | (points > last + 0.5)).any(axis=1)
    if not is_outside.any():
        return
    first = [round(number, 1) for number in points[is_outside][0].tolist()]
    raise ScanError(
        f"{what}: the voxel {first} lies outside the scan, whose voxels run from [0, 0, 0] to "
        f"{last.tolist()}"
    )


def find_voxels(points: Points, shape: Sequence[int]) -> npt.NDArray[np.int_]:
    """Return the voxels that points lie in, ``(n, 3)``."""
    # Half an index goes up, as in viewers.
    nearest = np.floor(points + 0.5).astype(int)
    voxels: npt.NDArray[np.int_] = nearest.clip(0, np.array(shape) - 1)
    return voxels
