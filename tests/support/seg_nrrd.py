"""Made-up ``.seg.nrrd`` files as 3D Slicer writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_seg_nrrd(
    path: Path,
    array: np.ndarray,
    segments: Sequence[tuple[str, int]] | Sequence[tuple[str, int, int]],
    affine: np.ndarray | None = None,
) -> Path:
    """Write a segmentation.

    Args:
        path: The file.
        array: ``(i, j, k)``, or ``(layers, i, j, k)``, uint8.
        segments: Name and value of each, and its layer where it is not 0.
        affine: RAS; 1 mm voxels unless given.
    """
    affine = np.eye(4) if affine is None else affine
    columns = [
        "({},{},{})".format(*affine[:3, axis].tolist()) for axis in range(3)
    ]
    origin = "({},{},{})".format(*affine[:3, 3].tolist())
    has_layers = array.ndim == 4
    if has_layers:
        columns.insert(0, "none")
    kinds = (
        "list domain domain domain" if has_layers else "domain domain domain"
    )
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "# http://teem.sourceforge.net/nrrd/format.html",
        "type: unsigned char",
        f"dimension: {array.ndim}",
        "space: right-anterior-superior",
        f"sizes: {' '.join(map(str, array.shape))}",
        f"space directions: {' '.join(columns)}",
        f"kinds: {kinds}",
        "encoding: raw",
        f"space origin: {origin}",
    ]
    for number, (name, value, *layer) in enumerate(segments):
        lines += [
            f"Segment{number}_Color:=0.5 0.6 0.7",
            f"Segment{number}_Extent:=0 1 0 1 0 1",
            f"Segment{number}_ID:=Segment_{number + 1}",
            f"Segment{number}_LabelValue:={value}",
            f"Segment{number}_Layer:={layer[0] if layer else 0}",
            f"Segment{number}_Name:={name}",
            f"Segment{number}_Tags:=Segmentation.Status:completed|",
        ]
    lines.append("Segmentation_MasterRepresentation:=Binary labelmap")
    path.parent.mkdir(parents=True, exist_ok=True)
    header = "\n".join(lines) + "\n\n"
    path.write_bytes(header.encode() + array.astype(np.uint8).tobytes("F"))
    return path
