"""Headers of NIfTI images → where their voxels lie in the patient, in mm, and what is doubtful.

Source: the NIfTI-1 and NIfTI-2 headers (nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from nibabel.spatialimages import HeaderDataError

from medseg.affines import Affine, largest_corner_distance
from medseg.errors import GeometryError
from medseg.io.voxels import LARGEST_MM

Header: TypeAlias = Any
"""A ``nibabel.Nifti1Header``; those of NIfTI-2 are a subclass."""

NO_ORIENTATION = (
    "the file has no orientation (sform and qform codes are 0); left and right are "
    "a guess"
)
"""Said of files that state sizes alone; Analyze's never state more."""

_FORMS_AGREE_MM = 0.1
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""``xyzt_units`` → mm; 0, which says nothing, is taken as mm by everyone."""
_UNIT_NAMES = {1: "metres", 3: "micrometres"}
_LENGTH_UNITS = 8
"""``xyzt_units`` holds the unit of length below this, that of time above."""
_SIZES_AGREE = 0.01
"""How far sizes may differ, as a share: headers have single precision."""


@np.errstate(invalid="ignore")
def read_affine(
    header: Header, source: str | Path, given: Affine | None = None
) -> tuple[Affine, tuple[str, ...]]:
    """Return the affine in mm, and what is doubtful about it.

    The sform if it has a code, else the qform, else the voxel sizes alone, as nibabel chooses; but
    the qform where the sform is singular.

    Args:
        header: The header.
        source: The file, for errors.
        given: The affine of an image in memory, in the header's unit; it wins unless it is
            singular.

    Raises:
        GeometryError: If the orientation is broken, or the unit of length is none.
    """
    mm_per_unit, unit_doubts = _read_length_unit(header, source)
    try:
        affine, doubts = _choose_form(header, mm_per_unit)
        own = header.get_best_affine()
    except (
        HeaderDataError,
        ValueError,
        KeyError,
        np.linalg.LinAlgError,
    ) as error:
        raise GeometryError(
            "the orientation in the header is broken",
            source=source,
            detail=str(error),
        ) from error
    if given is not None and is_usable(given):
        # In double precision, where the header has single.
        affine = _scale(given, mm_per_unit)
    if given is not None and not np.allclose(given, own, equal_nan=True):
        doubts = ()
    if np.abs(affine).max() > LARGEST_MM:
        raise GeometryError(
            f"a length of {np.abs(affine).max():g} mm in the header is impossible",
            source=source,
        )
    return affine, (*doubts, *unit_doubts)


def is_usable(affine: Affine) -> bool:
    """Tell whether an affine gives voxels a size."""
    if not np.isfinite(affine).all():
        return False
    return bool(np.linalg.matrix_rank(affine[:3, :3]) == 3)


def _read_length_unit(
    header: Header, source: str | Path
) -> tuple[float, tuple[str, ...]]:
    """Return how many mm the header's unit of length is, and what to say of it."""
    code = int(header["xyzt_units"]) % _LENGTH_UNITS
    if code not in _MM_PER_UNIT:
        raise GeometryError(
            f"the header gives lengths in a unit that NIfTI does not have (code {code}); 2 is mm",
            source=source,
        )
    if code not in _UNIT_NAMES:
        return 1.0, ()
    said = f"the header gives lengths in {_UNIT_NAMES[code]}; they were converted to mm"
    return _MM_PER_UNIT[code], (said,)


def _choose_form(
    header: Header, mm_per_unit: float
) -> tuple[Affine, tuple[str, ...]]:
    """Return the affine in mm that the header states, and doubts."""
    sform, _ = header.get_sform(coded=True)
    has_sform = sform is not None and is_usable(sform)
    qform = _read_qform(header, is_needed=not has_sform)
    if qform is not None and not has_sform:
        is_beside = sform is not None
        said = "the sform is zero or singular; the qform is used"
        return _scale(qform, mm_per_unit), (said,) if is_beside else ()
    if sform is None:
        affine = _scale(header.get_base_affine(), mm_per_unit)
        return affine, (NO_ORIENTATION,)
    affine = _scale(sform, mm_per_unit)
    if qform is None:
        return affine, _compare_sizes(affine, header, mm_per_unit)
    return affine, _compare_forms(affine, _scale(qform, mm_per_unit), header)


def _read_qform(header: Header, *, is_needed: bool) -> Affine | None:
    """Return the qform, ``None`` where it has no code, or is broken and not needed."""
    try:
        qform, _ = header.get_qform(coded=True)
    except (HeaderDataError, ValueError):
        if is_needed:
            raise
        return None
    is_broken = qform is not None and not is_usable(qform)
    return None if is_broken and not is_needed else qform


def _compare_sizes(
    sform: Affine, header: Header, mm_per_unit: float
) -> tuple[str, ...]:
    """Compare an sform that stands alone with the sizes of voxels; return a doubt, or none."""
    if int(header["qform_code"]):
        return ("the qform is broken; the sform is used",)
    axes = min(len(header.get_data_shape()), 3)
    steps = np.linalg.norm(sform[:3, :axes], axis=0)
    sizes = header["pixdim"][1 : axes + 1] * mm_per_unit
    if np.allclose(sizes, steps, rtol=_SIZES_AGREE):
        return ()
    listed = " × ".join(f"{size:.3g}" for size in sizes)
    used = " × ".join(f"{step:.3g}" for step in steps)
    return (
        f"voxels are {listed} mm by pixdim and {used} mm by the sform, which is used",
    )


def _compare_forms(
    sform: Affine, qform: Affine, header: Header
) -> tuple[str, ...]:
    """Compare the places of voxels by both; return a doubt, or none."""
    i, j, k = (*header.get_data_shape(), 1, 1)[:3]
    distance = largest_corner_distance(sform, qform, (i, j, k))
    smallest_step = np.linalg.norm(sform[:3, :3], axis=0).min()
    if distance <= min(_FORMS_AGREE_MM, smallest_step):
        return ()
    return (
        f"sform and qform differ by up to {distance:.3g} mm; the sform is used",
    )


def _scale(affine: Affine, mm_per_unit: float) -> Affine:
    scaled = np.array(affine, dtype=np.float64)
    scaled[:3] *= mm_per_unit
    return scaled
