"""NRRD and MetaImage files (``.nrrd``, ``.mha``, ``.mhd``) ↔ volumes, on SimpleITK.

ITK counts millimetres towards the patient's left, back and head (LPS), volumes towards right,
front and head (RAS+): the first two axes change sign. The text fields of these files may name
the patient; none of them is kept.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from medseg.tools.images.contract import Format, single_file
from medseg.tools.images.voxels import as_labels, check_size, empty_image, replace_nonfinite
from medseg.words.errors import GeometryError, OutputError, ScanError
from medseg.words.volume import Affine, Volume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LONGEST_HEADER = 1 << 16
_CHUNK = 1 << 20
_ORTHOGONAL = 1e-4


@dataclass(frozen=True, slots=True)
class _Payload:
    """Where the voxels lie: a file, a byte offset in it, and whether they are deflated."""

    file: Path
    offset: int
    deflated: bool
    warnings: tuple[str, ...] = ()


def read(files: Sequence[Path]) -> Volume:
    """Read one NRRD or MetaImage file as an image, float32; vectors become channels.

    Raises:
        ScanError: If it is broken, truncated, not three-dimensional, or keeps its voxels in a
            file elsewhere.
        GeometryError: If its spacing or directions are not those of a grid.
    """
    path = single_file(files, "NRRD/MHA")
    array, affine, warnings = _load(path)
    image = empty_image(array.shape[1:] + array.shape[:1], path.name)
    with np.errstate(over="ignore", invalid="ignore"):
        image[...] = np.moveaxis(array, 0, -1)
    warnings += replace_nonfinite(image)
    return Volume(np.moveaxis(image, -1, 0), affine, path.name, warnings)


def read_labels(files: Sequence[Path]) -> Volume:
    """Read one NRRD or MetaImage file as a label map, unsigned integers, ``(1, i, j, k)``.

    Raises:
        ScanError: As for ``read``, or if it holds vectors or values that are no labels.
        GeometryError: If its spacing or directions are not those of a grid.
    """
    path = single_file(files, "NRRD/MHA")
    array, affine, warnings = _load(path)
    if array.shape[0] != 1:
        raise ScanError(f"{path.name}: a label map has one channel, this file has {array.shape[0]}")
    return Volume(as_labels(array, path.name), affine, path.name, warnings)


def write_labels(path: Path, labels: npt.NDArray[Any], like: Volume) -> None:
    """Write ``labels``, shape ``(i, j, k)``, on the grid of ``like``, compressed.

    Raises:
        OutputError: If the grid is sheared (a tilted gantry), which ITK cannot say, or the file
            cannot be written.
    """
    import SimpleITK as sitk  # noqa: N813

    lps = LPS_TO_RAS @ like.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / spacing
    if np.abs(directions.T @ directions - np.eye(3)).max() > _ORTHOGONAL:
        raise OutputError(
            f"{path.suffix} files cannot hold the sheared grid of a tilted scan; write .nii.gz"
        )
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels.T))
    image.SetSpacing(spacing.tolist())
    image.SetDirection(directions.ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise OutputError(f"cannot write a {path.suffix} file: {_last_line(error)}") from error


def _load(path: Path) -> tuple[npt.NDArray[Any], Affine, tuple[str, ...]]:
    """Return voxels of shape ``(channels, i, j, k)``, the affine and warnings."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        payload = _payload(path)
        reader.ReadImageInformation()
        _check_grid(reader, path.name)
        _check_length(payload, _voxel_bytes(reader, path.name), path.name)
        image = reader.Execute()
    except OSError as error:
        raise ScanError(f"{path.name}: cannot be read ({error.strerror})") from error
    except RuntimeError as error:
        raise ScanError(
            f"{path.name}: not readable as NRRD or MetaImage: {_last_line(error)}"
        ) from error
    array = sitk.GetArrayFromImage(image)
    channels = array[..., None] if array.ndim == 3 else array
    return channels.transpose(3, 2, 1, 0), _affine(image, path.name), payload.warnings


def _check_grid(reader: Any, name: str) -> None:
    size = reader.GetSize()
    if len(size) != 3:
        raise ScanError(f"{name}: {len(size)} axes; volumes of three are read")
    check_size((*size, reader.GetNumberOfComponents()), name)


def _voxel_bytes(reader: Any, name: str) -> int:
    import SimpleITK as sitk  # noqa: N813

    components = reader.GetNumberOfComponents()
    one = sitk.Image([1, 1, 1], reader.GetPixelID(), components)
    if "complex" in one.GetPixelIDTypeAsString():
        raise ScanError(f"{name}: complex numbers are not segmented; save their magnitude")
    return int(math.prod(reader.GetSize()) * components * one.GetSizeOfPixelComponent())


def _affine(image: Any, name: str) -> Affine:
    spacing = np.array(image.GetSpacing())
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * spacing
    affine[:3, 3] = image.GetOrigin()
    if not np.isfinite(affine).all() or (spacing <= 0).any():
        raise GeometryError(f"{name}: the spacing or origin in the header is broken")
    return LPS_TO_RAS @ affine


def _payload(path: Path) -> _Payload:
    with path.open("rb") as file:
        if path.name.lower().endswith(".nrrd"):
            return _nrrd_payload(path, file)
        return _meta_payload(path, file)


def _nrrd_payload(path: Path, file: BinaryIO) -> _Payload:
    if not file.readline(_LONGEST_HEADER).startswith(b"NRRD"):
        raise ScanError(f"{path.name}: not a NRRD file; it does not begin with NRRD")
    fields = {}
    while line := _header_line(file, path.name).strip():
        name, found, value = line.partition(":")
        if found and not line.startswith("#"):
            fields[name.strip().lower()] = value.strip().lower()
    if {"data file", "datafile"} & set(fields):
        raise ScanError(f"{path.name}: its voxels lie in another file; save both as one .nrrd")
    if {"line skip", "lineskip", "byte skip", "byteskip"} & set(fields):
        raise ScanError(f"{path.name}: skips bytes before its voxels; save it again without")
    encoding = fields.get("encoding", "")
    if encoding not in ("raw", "gzip", "gz"):
        raise ScanError(f"{path.name}: encoding '{encoding[:20]}'; raw and gzip are read")
    doubts = ("the file does not say how its axes lie in the patient; LPS is assumed",)
    known = "space" in fields or "space dimension" in fields
    return _Payload(path, file.tell(), encoding != "raw", () if known else doubts)


def _meta_payload(path: Path, file: BinaryIO) -> _Payload:
    fields: dict[str, str] = {}
    while "elementdatafile" not in fields:
        line = _header_line(file, path.name)
        if not line:
            raise ScanError(f"{path.name}: not a MetaImage; no ElementDataFile in its header")
        name, _, value = line.partition("=")
        fields[name.strip().lower()] = value.strip()
    if fields.get("headersize", "0") != "0" or fields.get("binarydata", "true").lower() != "true":
        raise ScanError(f"{path.name}: text voxels or skipped bytes; save it again as plain .mha")
    deflated = fields.get("compresseddata", "false").lower() == "true"
    voxels = fields["elementdatafile"]
    if voxels.upper() == "LOCAL":
        return _Payload(path, file.tell(), deflated)
    beside = path.parent / voxels
    if path.suffix.lower() != ".mhd" or Path(voxels).name != voxels or not beside.is_file():
        raise ScanError(
            f"{path.name}: its voxels must lie in one file in the same folder; save it as .mha"
        )
    return _Payload(beside, 0, deflated)


def _header_line(file: BinaryIO, name: str) -> str:
    if file.tell() > _LONGEST_HEADER:
        raise ScanError(f"{name}: its header does not end within {_LONGEST_HEADER:,} bytes")
    return file.readline(_LONGEST_HEADER).decode("latin-1")


def _check_length(payload: _Payload, needed: int, name: str) -> None:
    """Refuse a file that holds fewer bytes of voxels than its header promises."""
    there = payload.file.stat().st_size - payload.offset
    if payload.deflated:
        there = _inflated_size(payload, needed, name)
    if there < needed:
        raise ScanError(f"{name}: truncated; {there:,} of {needed:,} bytes of voxels are there")


def _inflated_size(payload: _Payload, needed: int, name: str) -> int:
    """Count what the stream inflates to, stopping soon after ``needed``; nothing is kept."""
    inflate = zlib.decompressobj(wbits=47)  # 32 + 15: zlib or gzip, by its first bytes
    count = 0
    with payload.file.open("rb") as file:
        file.seek(payload.offset)
        while count <= needed and not inflate.eof:
            packed = inflate.unconsumed_tail or file.read(_CHUNK)
            if not packed:
                raise ScanError(f"{name}: truncated; its compressed voxels end too early")
            try:
                count += len(inflate.decompress(packed, 4 * _CHUNK))
            except zlib.error as error:
                raise ScanError(f"{name}: its compressed voxels are damaged ({error})") from error
    if count > needed:
        raise ScanError(f"{name}: holds more voxels than its header says; one of them is wrong")
    return count


def _last_line(error: Exception) -> str:
    # ITK's messages begin with its source path and hold the scan's whole path.
    return str(error).strip().splitlines()[-1].rpartition("): ")[2][:120]


ITK = Format("NRRD/MHA", (".nrrd", ".mha", ".mhd"), read, read_labels)
