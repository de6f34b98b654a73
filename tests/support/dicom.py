"""Made-up DICOM series for tests: small, oblique, asymmetric, each trap one keyword away."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, generate_uid

ROWS = np.array([0.8, 0.6, 0.0])
"""Direction along a row, LPS: oblique, yet exact in few digits."""
COLUMNS = np.array([-0.36, 0.48, 0.8])
NORMAL = np.cross(ROWS, COLUMNS)
ORIGIN = np.array([-31.5, 12.25, 7.0])
SPACING = (0.75, 1.25)
"""mm between rows, mm between columns."""
GAP = 2.5
SHAPE = (6, 5, 4)
"""Columns, rows, slices: (i, j, k)."""
PATIENT = "Secret^Person"


def voxels(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    return (
        np.random.default_rng(seed).integers(0, 4000, shape).astype(np.uint16)
    )


def affine(gap: float = GAP) -> np.ndarray:
    lps = np.eye(4)
    lps[:3, 0] = ROWS * SPACING[1]
    lps[:3, 1] = COLUMNS * SPACING[0]
    lps[:3, 2] = NORMAL * gap
    lps[:3, 3] = ORIGIN
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def slice_dataset(
    pixels: np.ndarray, k: int, series: str, **changes: Any
) -> FileDataset:
    """One CT slice; ``pixels`` has shape (i, j). A change of ``None`` removes the element."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = uids.CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(
        entropy_srcs=[series, str(k)]
    )
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = meta.MediaStorageSOPClassUID
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    ds.SeriesInstanceUID = series
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame"])
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = (
        PATIENT,
        "ID-4711",
        "19700101",
    )
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Columns, ds.Rows = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = pixels.dtype.itemsize * 8
    ds.BitsStored, ds.HighBit = ds.BitsAllocated, ds.BitsAllocated - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.ImagePositionPatient = [
        round(float(x), 6) for x in ORIGIN + NORMAL * GAP * k
    ]
    ds.ImageOrientationPatient = [*ROWS.tolist(), *COLUMNS.tolist()]
    ds.PixelSpacing = list(SPACING)
    ds.SliceThickness, ds.InstanceNumber = 1.0, k + 1
    ds.PixelData = pixels.T.tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def series(
    array: np.ndarray | None = None, name: str = "series", **changes: Any
) -> list[FileDataset]:
    """One dataset per slice of ``array`` (i, j, k); changes apply to each."""
    array = voxels() if array is None else array
    uid = generate_uid(entropy_srcs=[name])
    return [
        slice_dataset(array[:, :, k], k, uid, **changes)
        for k in range(array.shape[2])
    ]


def save(folder: Path, datasets: list[FileDataset], prefix: str = "IM") -> Path:
    """Write them under names whose order has nothing to do with place."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(1).permutation(len(datasets))
    for number, ds in zip(order, datasets, strict=True):
        ds.save_as(folder / f"{prefix}{number:04d}", enforce_file_format=False)
    return folder


def move(ds: FileDataset, millimetres: np.ndarray) -> FileDataset:
    ds.ImagePositionPatient = [
        round(float(x), 6)
        for x in np.array(ds.ImagePositionPatient, float) + millimetres
    ]
    return ds


def enhanced(
    array: np.ndarray | None = None, order: list[int] | None = None
) -> FileDataset:
    """One Enhanced MR file; frames stored in ``order``, each with its own rescale."""
    array = voxels() if array is None else array
    order = list(range(array.shape[2])) if order is None else order
    ds = slice_dataset(
        array[:, :, 0], 0, generate_uid(entropy_srcs=["enhanced"])
    )
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
    ):
        delattr(ds, keyword)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(
        uids.EnhancedMRImageStorage
    )
    ds.Modality = "MR"
    ds.NumberOfFrames = len(order)
    ds.PixelData = b"".join(array[:, :, k].T.tobytes() for k in order)
    shared = Dataset()
    shared.PixelMeasuresSequence = [
        _item(PixelSpacing=list(SPACING), SliceThickness=1.0)
    ]
    shared.PlaneOrientationSequence = [
        _item(ImageOrientationPatient=[*ROWS.tolist(), *COLUMNS.tolist()])
    ]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [_frame(k) for k in order]
    return ds


def _frame(k: int) -> Dataset:
    position = [round(float(x), 6) for x in ORIGIN + NORMAL * GAP * k]
    frame = Dataset()
    frame.PlanePositionSequence = [_item(ImagePositionPatient=position)]
    frame.PixelValueTransformationSequence = [
        _item(RescaleSlope=k + 1, RescaleIntercept=-k, RescaleType="US")
    ]
    frame.FrameContentSequence = [_item(TemporalPositionIndex=1)]
    return frame


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def two_echoes() -> list[FileDataset]:
    first = series(voxels(seed=1), EchoTime=4.6)
    second = series(voxels(seed=2), EchoTime=80)
    for ds in second:
        ds.SOPInstanceUID = generate_uid()
    return [*first, *second]


def dynamic(points: int = 3) -> FileDataset:
    """One file with several time points, their frames mixed; each has voxels of its own."""
    stacks = [voxels(seed=point) for point in range(points)]
    mixed = [(k, point) for k in (2, 0, 3, 1) for point in range(points)]
    array = np.stack([stacks[point][:, :, k] for k, point in mixed], axis=2)
    ds = enhanced(array, order=list(range(len(mixed))))
    frames = [enhanced().PerFrameFunctionalGroupsSequence[k] for k, _ in mixed]
    for frame, (k, point) in zip(frames, mixed, strict=True):
        frame.FrameContentSequence[0].TemporalPositionIndex = point + 1
        frame.FrameContentSequence[0].DimensionIndexValues = [k + 1, point + 1]
        (scaling,) = frame.PixelValueTransformationSequence
        scaling.RescaleSlope, scaling.RescaleIntercept = 1, 0
    ds.PerFrameFunctionalGroupsSequence = frames
    return ds


def uneven(
    folder: Path, gaps: list[float], shear=(0.0, 0.0), gradient=(1.0, 2.0, 3.0)
) -> Path:
    """A series at uneven distances whose intensities are linear in the place, LPS mm."""
    places = np.cumsum([0.0, *gaps])
    along = NORMAL + shear[0] * ROWS + shear[1] * COLUMNS
    datasets = series(np.zeros((6, 5, len(places)), np.uint16))
    i, j = np.mgrid[0:6, 0:5]
    for ds, place in zip(datasets, places, strict=True):
        ds.ImagePositionPatient = (ORIGIN + along * place).round(6).tolist()
        start = np.array(ds.ImagePositionPatient, float)
        columns = ROWS * SPACING[1]
        rows = COLUMNS * SPACING[0]
        at = start + i[..., None] * columns + j[..., None] * rows
        field = at @ np.array(gradient)
        ds.RescaleIntercept = 0
        ds.BitsAllocated, ds.FloatPixelData = (
            32,
            field.T.astype("<f4").tobytes(),
        )
        del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    return save(folder, datasets)


def forged(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def deflate(path: Path, bomb: int = 0) -> None:
    """Store a file deflated, with ``bomb`` more zero bytes in the last element."""
    ds = pydicom.dcmread(path)
    start = 132 + len(_meta_bytes(ds))
    plain = path.read_bytes()[start:]
    if bomb:
        plain += (
            struct.pack("<HH2sHI", 0x7FE1, 0x0010, b"OB", 0, bomb)
            + b"\0" * bomb
        )
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    ds.file_meta.TransferSyntaxUID = uids.DeflatedExplicitVRLittleEndian
    with path.open("wb") as file:
        file.write(b"\0" * 128 + b"DICM")
        file.write(_meta_bytes(ds))
        file.write(squeeze.compress(plain) + squeeze.flush())


def _meta_bytes(ds: FileDataset) -> bytes:
    stream = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(
        stream, ds.file_meta, enforce_standard=False
    )
    return stream.getvalue()


def encoded(syntax: str, frames: list[bytes], **changes) -> list[FileDataset]:
    datasets = series(**changes)
    for ds, frame in zip(datasets, frames, strict=True):
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([frame])
    return datasets
