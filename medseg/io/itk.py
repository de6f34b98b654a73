"""NRRD and MetaImage files (``.nrrd``, ``.nhdr``, ``.mha``, ``.mhd``) ↔ volumes.

ITK counts millimetres towards the patient's left, back and head (LPS), volumes towards right,
front and head (RAS+): the first two axes change sign. Label maps are written by SimpleITK.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg._support.files import refuse_special
from medseg.errors import OutputError, ScanError
from medseg.io.formats import Format, single_file
from medseg.io.itk_headers import LPS_TO_RAS, Layout
from medseg.io.meta_headers import read_meta
from medseg.io.nrrd_headers import read_nrrd
from medseg.io.seg_nrrd import read_segments
from medseg.io.voxels import as_labels, check_size, empty_image
from medseg.padding import replace_nonfinite
from medseg.volume import Volume

_CHUNK = 1 << 20
_ORTHOGONAL = 1e-4
_MOST_CHANNELS = 1000
_NRRD_SUFFIXES = (".nrrd", ".nhdr")


def read(files: Sequence[Path]) -> Volume:
    """Read one NRRD or MetaImage file as an image, float32; vectors become channels.

    Raises:
        ScanError: If it is broken, truncated, not three-dimensional, or keeps its voxels in a
            file elsewhere.
        GeometryError: If its spacing or directions are not those of a grid.
    """
    path = single_file(files, "NRRD/MHA")
    layout, array = _load(path)
    channels_last = np.moveaxis(array, 0, -1)
    image = empty_image(channels_last.shape, path)
    with np.errstate(over="ignore"):
        image[...] = channels_last
    padding, remarks = replace_nonfinite(image, path)
    return Volume(
        array=np.moveaxis(image, -1, 0),
        affine=layout.affine,
        source=path.name,
        warnings=(*layout.warnings, *remarks),
        padding=padding,
    )


def read_labels(files: Sequence[Path]) -> Volume:
    """Read one NRRD or MetaImage file as a label map, unsigned integers, ``(1, i, j, k)``.

    Raises:
        ScanError: As for ``read``, or if it holds vectors or values that are no labels.
        GeometryError: If its spacing or directions are not those of a grid.
    """
    path = single_file(files, "NRRD/MHA")
    layers = read_layers(path)
    channels = len(layers.array)
    if channels != 1:
        what = f"a label map has one channel, this file has {channels}"
        remedy = "save one label map per file"
        if read_segments(path):
            what += " layers of segments that overlap"
            remedy = "export them as one label map, or as a file per segment"
        raise ScanError(f"{what}; {remedy}", source=path)
    return layers


def read_layers(path: Path) -> Volume:
    """Read label maps of one file, such as the layers of overlapping segments.

    Returns:
        Unsigned integers, shape ``(layers, i, j, k)``.

    Raises:
        ScanError: As for ``read``, or if it holds values that are no labels.
        GeometryError: If its spacing or directions are not those of a grid.
    """
    layout, array = _load(path)
    return Volume(
        array=as_labels(array, path),
        affine=layout.affine,
        source=path.name,
        warnings=layout.warnings,
    )


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
        # The path is a temporary one, which would tell nobody anything.
        raise OutputError(
            "ITK could not write the file; is the disk full?", detail=str(error)
        ) from error


def make_label_image(labels: npt.NDArray[Any], like: Volume) -> Any:
    """Return ``labels``, shape ``(i, j, k)``, as a ``SimpleITK.Image`` on the grid of ``like``.

    Raises:
        OutputError: If the grid is sheared (a tilted gantry), which ITK cannot say.
    """
    import SimpleITK as sitk  # noqa: N813

    lps = LPS_TO_RAS @ like.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / spacing
    deviation = directions.T @ directions - np.eye(3)
    if np.abs(deviation).max() > _ORTHOGONAL:
        raise OutputError(
            "ITK's images and files cannot hold the sheared grid of a scan with a tilted gantry; "
            "write .nii.gz"
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
        content = _read_voxels(layout, needed, path)
    except OSError as error:
        raise ScanError(
            "the file cannot be read", source=path, detail=error.strerror
        ) from error
    if len(content) < needed:
        raise ScanError(
            f"truncated: the file holds {len(content):,} of {needed:,} bytes of voxels; copy or "
            "download it again",
            source=path,
        )
    if not layout.packed:
        layout = _count_surplus(layout, needed)
    array: npt.NDArray[Any] = np.ndarray(
        layout.shape, layout.dtype, content, order="F"
    )
    if layout.channel_axis is None:
        return layout, array[None]
    return layout, np.moveaxis(array, layout.channel_axis, 0)


def _count_surplus(layout: Layout, needed: int) -> Layout:
    """Return the layout, with a warning if bytes follow the voxels that it states."""
    surplus = layout.file.stat().st_size - layout.offset - needed
    if not surplus:
        return layout
    said = f"{surplus:,} bytes follow the voxels that the header states"
    return replace(layout, warnings=(*layout.warnings, said))


def _read_voxels(layout: Layout, needed: int, path: Path) -> bytes | bytearray:
    """Return the bytes of the voxels; fewer than needed if the file has no more."""
    with layout.file.open("rb") as file:
        file.seek(layout.offset)
        if layout.packed:
            return _inflate(file.read(), needed, path)
        # Never asked for more than the file has: a forged size would take that much memory.
        available = layout.file.stat().st_size - layout.offset
        return file.read(min(needed, available))


def _inflate(packed: bytes, needed: int, path: Path) -> bytearray:
    # 32 + 15: zlib or gzip, by its first bytes
    decompressor = zlib.decompressobj(wbits=47)
    content = bytearray()
    try:
        # One byte more than needed tells a file that holds too many from one that is right.
        while not decompressor.eof and len(content) <= needed:
            room = min(needed + 1 - len(content), 16 * _CHUNK)
            chunk = decompressor.decompress(packed, room)
            packed = decompressor.unconsumed_tail
            content += chunk
            is_stuck = not chunk and not packed
            if is_stuck and not decompressor.eof:
                raise ScanError(
                    "truncated: its compressed voxels end too early; copy or download it again",
                    source=path,
                )
    except zlib.error as error:
        raise ScanError(
            "its compressed voxels are damaged; copy or download it again",
            source=path,
            detail=str(error),
        ) from error
    if len(content) > needed:
        raise ScanError(
            "the file holds more voxels than its header states; one of them is wrong",
            source=path,
        )
    return content


def read_layout(path: Path) -> Layout:
    """Read the header of a NRRD or MetaImage file.

    Raises:
        ScanError: If it is not such a file, is broken, or leads to voxels elsewhere.
        GeometryError: If its axes or spacing are not numbers.
    """
    is_nrrd = path.name.lower().endswith(_NRRD_SUFFIXES)
    read_header = read_nrrd if is_nrrd else read_meta
    refuse_special(path)
    with path.open("rb") as file:
        layout = read_header(path, file)
    if layout.channels > _MOST_CHANNELS:
        raise ScanError(
            f"the header states {layout.channels} channels; at most {_MOST_CHANNELS} are read",
            source=path,
        )
    check_size(layout.shape, path)
    return layout


ITK = Format(
    "NRRD/MHA",
    (*_NRRD_SUFFIXES, ".mha", ".mhd"),
    read,
    read_labels,
    write_labels,
    label_suffixes=(".nrrd", ".mha"),
)
