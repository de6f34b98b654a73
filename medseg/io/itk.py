"""NRRD and MetaImage files (``.nrrd``, ``.mha``, ``.mhd``) ↔ volumes.

ITK counts millimetres towards the patient's left, back and head (LPS), volumes towards right,
front and head (RAS+): the first two axes change sign. Label maps are written by SimpleITK.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import MedsegError, OutputError, ScanError
from medseg.io.formats import Format, single_file
from medseg.io.itk_headers import LPS_TO_RAS, Layout, read_layout
from medseg.io.voxels import as_labels, empty_image, replace_nonfinite
from medseg.volume import Volume

_CHUNK = 1 << 20
_ORTHOGONAL = 1e-4


def read(files: Sequence[Path]) -> Volume:
    """Read one NRRD or MetaImage file as an image, float32; vectors become channels.

    Raises:
        ScanError: If it is broken, truncated, not three-dimensional, or keeps its voxels in a
            file elsewhere.
        GeometryError: If its spacing or directions are not those of a grid.
    """
    path = single_file(files, "NRRD/MHA")
    layout, array = _load(path)
    image = empty_image((*array.shape[1:], array.shape[0]), path.name)
    with np.errstate(over="ignore"):
        image[...] = np.moveaxis(array, 0, -1)
    warnings = (*layout.warnings, *replace_nonfinite(image))
    return Volume(np.moveaxis(image, -1, 0), layout.affine, path.name, warnings)


def read_labels(files: Sequence[Path]) -> Volume:
    """Read one NRRD or MetaImage file as a label map, unsigned integers, ``(1, i, j, k)``.

    Raises:
        ScanError: As for ``read``, or if it holds vectors or values that are no labels.
        GeometryError: If its spacing or directions are not those of a grid.
    """
    path = single_file(files, "NRRD/MHA")
    layout, array = _load(path)
    if array.shape[0] != 1:
        raise ScanError(f"{path.name}: a label map has one channel, this file has {array.shape[0]}")
    return Volume(as_labels(array, path.name), layout.affine, path.name, layout.warnings)


def write_labels(path: Path, labels: npt.NDArray[Any], like: Volume) -> None:
    """Write ``labels``, shape ``(i, j, k)``, on the grid of ``like``, compressed.

    Raises:
        OutputError: If the grid is sheared (a tilted gantry), which ITK cannot say, or the file
            cannot be written.
    """
    import SimpleITK as sitk  # noqa: N813

    image = make_label_image(labels, like)
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise OutputError(f"a {path.suffix} file could not be written by ITK") from error


def make_label_image(labels: npt.NDArray[Any], like: Volume) -> Any:
    """Return ``labels``, shape ``(i, j, k)``, as a ``SimpleITK.Image`` on the grid of ``like``.

    Raises:
        OutputError: If the grid is sheared (a tilted gantry), which ITK cannot say.
    """
    import SimpleITK as sitk  # noqa: N813

    lps = LPS_TO_RAS @ like.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / spacing
    if np.abs(directions.T @ directions - np.eye(3)).max() > _ORTHOGONAL:
        raise OutputError(
            "ITK's images and files cannot hold the sheared grid of a tilted scan; use NIfTI"
        )
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels.T))
    image.SetSpacing(spacing.tolist())
    image.SetDirection(directions.ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def _load(path: Path) -> tuple[Layout, npt.NDArray[Any]]:
    """Return the layout and voxels of shape ``(channels, i, j, k)``."""
    try:
        layout = read_layout(path)
        needed = math.prod(layout.shape) * layout.dtype.itemsize
        content = _content(layout, needed, path.name)
    except OSError as error:
        raise ScanError(f"{path.name}: cannot be read ({error.strerror})") from error
    if len(content) < needed:
        raise ScanError(
            f"{path.name}: truncated; {len(content):,} of {needed:,} bytes of voxels are there"
        )
    array: npt.NDArray[Any] = np.ndarray(layout.shape, layout.dtype, content, order="F")
    if layout.channel_axis is None:
        return layout, array[None]
    return layout, np.moveaxis(array, layout.channel_axis, 0)


def _content(layout: Layout, needed: int, name: str) -> bytes | bytearray:
    """Return the bytes of the voxels; fewer than needed if the file has no more."""
    with layout.file.open("rb") as file:
        file.seek(layout.offset)
        # Never asked for more than the file has: a forged size would take that much memory.
        there = layout.file.stat().st_size - layout.offset
        return (
            _inflated(file.read(), needed, name) if layout.packed else file.read(min(needed, there))
        )


def _inflated(packed: bytes, needed: int, name: str) -> bytearray:
    inflate = zlib.decompressobj(wbits=47)  # 32 + 15: zlib or gzip, by its first bytes
    content = bytearray()
    try:
        while not inflate.eof and len(content) <= needed:
            chunk = inflate.decompress(packed, min(needed + 1 - len(content), 16 * _CHUNK))
            packed = inflate.unconsumed_tail
            content += chunk
            if not (chunk or packed or inflate.eof):
                raise ScanError(f"{name}: truncated; its compressed voxels end too early")
    except zlib.error as error:
        raise ScanError(f"{name}: its compressed voxels are damaged ({error})") from error
    if len(content) > needed:
        raise ScanError(f"{name}: holds more voxels than its header says; one of them is wrong")
    return content


def find_voxel_file(path: Path) -> Path:
    """Return the file that holds an image's voxels: that beside a ``.mhd``, else itself."""
    if path.suffix.lower() != ".mhd":
        return path
    try:
        return read_layout(path).file
    except (MedsegError, OSError):
        return path  # reading it says what is wrong with it


ITK = Format("NRRD/MHA", (".nrrd", ".mha", ".mhd"), read, read_labels)
