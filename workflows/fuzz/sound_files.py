"""Sound files of every kind that medseg reads, made up, with what they hold.

The voxels are noise with a gradient, the grid is turned, anisotropic and off the origin: whatever
flips, permutes, shifts or scales is seen.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK
import tifffile
from PIL import Image
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import generate_uid

SECRET = "Zzyzx-Musterfrau"
"""Stands in headers as the patient's name; nothing that is recorded may hold it."""
SHAPE = (18, 16, 12)
PICTURE = (40, 34)
SPACING = (3.5, 4.25, 6.0)
ORIGIN = (-31.5, 12.25, 40.75)

_ANGLE = 0.2
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DICOM_FORMS = ("explicit", "implicit", "rle", "multiframe")


@dataclass(frozen=True)
class Sound:
    """A file, or several that belong together.

    Attributes:
        kind: ``nifti``, ``dicom``, ``png``, …
        path: The file that people name; a folder for DICOM.
        files: All files, the one with the header first.
        array: Voxels ``(i, j, k)``.
        affine: Voxel → RAS mm; the identity for pictures.
    """

    kind: str
    path: Path
    files: tuple[Path, ...]
    array: np.ndarray
    affine: np.ndarray


def pick_file(sound: Sound, random: np.random.Generator) -> Path:
    """Return one of the files."""
    return sound.files[int(random.integers(len(sound.files)))]


def make_affine() -> np.ndarray:
    """Return a turned, anisotropic grid."""
    c, s = np.cos(_ANGLE), np.sin(_ANGLE)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt * SPACING
    affine[:3, 3] = ORIGIN
    return affine


def make_voxels(random: np.random.Generator) -> np.ndarray:
    """Return int16 voxels that are all but unique."""
    i, j, k = np.indices(SHAPE)
    gradient = i * 17 + j * 29 + k * 41
    noise = random.integers(-300, 300, SHAPE)
    return (gradient + noise).astype(np.int16)


def make_sound(kind: str, folder: Path, random: np.random.Generator) -> Sound:
    """Write one sound file of a kind into a folder of its own."""
    folder.mkdir(parents=True)
    return WRITERS[kind](kind, folder, random)


def _write_nifti(kind: str, folder: Path, random: np.random.Generator) -> Sound:
    array = make_voxels(random)
    scaling = random.random() < 0.3
    if random.random() < 0.3:
        array = array.astype(np.float32) + 0.25
    affine = make_affine()
    pair = kind == "nifti pair"
    image = nib.Nifti1Pair if pair else nib.Nifti1Image
    made = image(array, affine)
    made.header["descrip"] = SECRET[:70].encode()
    made.set_sform(affine, code=1)
    made.set_qform(affine, code=int(random.integers(0, 2)))
    made.header.set_xyzt_units("mm")
    if scaling and array.dtype == np.int16:
        made.header.set_slope_inter(0.5, 3.0)
        array = np.round((array - 3.0) / 0.5).astype(np.int16) * 0.5 + 3.0
        made = image(array, affine, made.header)
    suffix = {"nifti": ".nii", "nifti gz": ".nii.gz", "nifti pair": ".img"}
    path = folder / f"scan{suffix[kind]}"
    nib.save(made, path)
    # Not mapped: the file will be damaged.
    stored = np.array(nib.load(path).dataobj)
    if pair:
        header = path.with_suffix(".hdr")
        return Sound(kind, header, (header, path), stored, affine)
    return Sound(kind, path, (path,), stored, affine)


def _write_itk(kind: str, folder: Path, random: np.random.Generator) -> Sound:
    array = make_voxels(random)
    affine = make_affine()
    image = SimpleITK.GetImageFromArray(array.T)
    lps = _LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetMetaData("PatientName", SECRET)
    path = folder / f"scan.{kind}"
    SimpleITK.WriteImage(
        image, path, useCompression=bool(random.random() < 0.4)
    )
    others = sorted(file for file in folder.iterdir() if file != path)
    return Sound(kind, path, (path, *others), array, affine)


def _write_dicom(kind: str, folder: Path, random: np.random.Generator) -> Sound:
    form = _DICOM_FORMS[int(random.integers(len(_DICOM_FORMS)))]
    array = make_voxels(random)
    affine = make_affine()
    # DICOM stores the origin with few digits.
    slices = _make_slices(array, affine, random)
    if form == "multiframe":
        slices = [_make_multiframe(slices)]
    for number, ds in enumerate(slices):
        file = folder / f"IM{number:04d}"
        if form == "implicit":
            ds.file_meta.TransferSyntaxUID = uids.ImplicitVRLittleEndian
        ds.save_as(file, enforce_file_format=True)
        if form == "rle":
            ds = pydicom.dcmread(file)
            ds.compress(
                uids.RLELossless,
                encoding_plugin="pydicom",
                generate_instance_uid=False,
            )
            ds.save_as(file, enforce_file_format=True)
    files = sorted(folder.iterdir())
    return Sound("dicom", folder, tuple(files), array, affine)


def _make_slices(
    array: np.ndarray, affine: np.ndarray, random: np.random.Generator
) -> list[FileDataset]:
    lps = _LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / spacing
    seed = [str(int(random.integers(1 << 60)))]
    series, study, frame = (
        generate_uid(entropy_srcs=[*seed, name]) for name in "sfr"
    )
    slices = []
    for k in range(array.shape[2]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = uids.CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(
            entropy_srcs=[*seed, str(k)]
        )
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID = meta.MediaStorageSOPClassUID
        ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
        ds.FrameOfReferenceUID = frame
        ds.PatientName, ds.PatientID = SECRET, SECRET
        ds.SeriesDescription, ds.StudyID = SECRET, "1"
        ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.Columns, ds.Rows, _ = array.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
        ds.PixelRepresentation = 1
        position = lps @ [0, 0, k, 1]
        ds.ImagePositionPatient = [f"{x:.6f}" for x in position[:3]]
        orientation = [*directions[:, 0], *directions[:, 1]]
        ds.ImageOrientationPatient = [f"{x:.10f}" for x in orientation]
        ds.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]
        ds.SliceThickness = f"{spacing[2]:.6f}"
        ds.InstanceNumber = k + 1
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        ds.PixelData = array[:, :, k].T.astype("<i2").tobytes()
        slices.append(ds)
    return slices


def _make_multiframe(slices: list[FileDataset]) -> FileDataset:
    """Return an enhanced CT of all slices."""
    first = slices[0]
    frames = []
    for ds in slices:
        group = Dataset()
        position = Dataset()
        position.ImagePositionPatient = ds.ImagePositionPatient
        group.PlanePositionSequence = [position]
        frames.append(group)
    shared, plane, measures = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = first.ImageOrientationPatient
    measures.PixelSpacing = first.PixelSpacing
    measures.SliceThickness = first.SliceThickness
    rescale = Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, 0
    shared.PlaneOrientationSequence = [plane]
    shared.PixelMeasuresSequence = [measures]
    shared.PixelValueTransformationSequence = [rescale]
    first.SOPClassUID = uids.EnhancedCTImageStorage
    first.file_meta.MediaStorageSOPClassUID = uids.EnhancedCTImageStorage
    first.NumberOfFrames = len(slices)
    first.SharedFunctionalGroupsSequence = [shared]
    first.PerFrameFunctionalGroupsSequence = frames
    pixels = [ds.PixelData for ds in slices]
    first.PixelData = b"".join(pixels)
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(first, keyword)
    return first


def _write_picture(
    kind: str, folder: Path, random: np.random.Generator
) -> Sound:
    columns, rows = PICTURE
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    pixels = (x * 3 + y * 2 + random.integers(0, 60, (rows, columns))) % 256
    pixels = pixels.astype(np.uint8)
    path = folder / f"scan.{kind}"
    if kind == "tiff" and random.random() < 0.5:
        pixels = pixels.astype(np.uint16) * 200
        tifffile.imwrite(path, pixels, compression="zlib", description=SECRET)
    else:
        image = Image.fromarray(pixels)
        image.save(path)
    stored = np.asarray(Image.open(path))
    return Sound(kind, path, (path,), stored.T[:, :, None], np.eye(4))


def make_labels(array: np.ndarray) -> np.ndarray:
    """Return a label map of two boxes on the grid of an array."""
    labels = np.zeros(array.shape, np.uint8)
    third = [max(size // 3, 1) for size in array.shape]
    labels[tuple(slice(0, size) for size in third)] = 1
    labels[tuple(slice(size, 2 * size) for size in third)] = 2
    return labels


def make_dataset(
    folder: Path, random: np.random.Generator, cases: int = 4
) -> Path:
    """Write an MSD data set of NIfTI files with its ``dataset.json``; return the folder."""
    listed = []
    for number in range(cases):
        name = f"case_{number:02d}.nii.gz"
        array, affine = make_voxels(random), make_affine()
        for part, voxels in (
            ("imagesTr", array),
            ("labelsTr", make_labels(array)),
        ):
            file = folder / part / name
            file.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, affine), file)
        listed.append(
            {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"}
        )
    content = {
        "name": "made up",
        "modality": {"0": "any"},
        "labels": {"0": "background", "1": "liver", "2": "kidney"},
        "numTraining": cases,
        "training": listed,
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=1))
    return folder


def _write_dataset_json(
    kind: str, folder: Path, random: np.random.Generator
) -> Sound:
    file = make_dataset(folder, random) / "dataset.json"
    return Sound(kind, folder, (file,), np.zeros(0), np.eye(4))


def _write_cases_csv(
    kind: str, folder: Path, random: np.random.Generator
) -> Sound:
    make_dataset(folder, random)
    (folder / "dataset.json").unlink()
    lines = ["name,image,label,fold"]
    for number, image in enumerate(sorted((folder / "imagesTr").iterdir())):
        name = image.name
        row = f"ä{number},imagesTr/{name},labelsTr/{name},{number % 2}"
        lines.append(row)
    file = folder / "cases.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Sound(kind, folder, (file,), np.zeros(0), np.eye(4))


def _write_label_map(
    kind: str, folder: Path, random: np.random.Generator
) -> Sound:
    make_dataset(folder, random)
    file = folder / "labelsTr" / "case_01.nii.gz"
    if random.random() < 0.5:
        # Without gzip's checksum in the way.
        plain = file.with_suffix("")
        nib.save(nib.load(file), plain)
        file.unlink()
        listed = folder / "dataset.json"
        text = listed.read_text()
        listed.write_text(
            text.replace(f"labelsTr/{file.name}", f"labelsTr/{plain.name}")
        )
        file = plain
    labels = np.array(nib.load(file).dataobj)
    return Sound(kind, folder, (file,), labels, make_affine())


def _write_bundle(
    kind: str, folder: Path, random: np.random.Generator
) -> Sound:
    make_dataset(folder, random)
    shutil.copytree(BUNDLES["volume"], folder / "bundle")
    file = folder / "bundle" / "bundle.json"
    return Sound(kind, folder, (file,), np.zeros(0), np.eye(4))


def _write_dicom_labels(
    kind: str, folder: Path, random: np.random.Generator
) -> Sound:
    from medseg.dicom_labels.rtstruct_writer import write_rtstruct
    from medseg.dicom_labels.seg_writer import write_dicom_seg
    from medseg.io import read_image
    from medseg.labels import Label, LabelSet

    label_set = LabelSet(
        [Label(1, "liver", 1, (255, 0, 0)), Label(2, "kidney", 2, (0, 9, 0))]
    )
    for patient in ("a", "b"):
        scan = folder / patient / "ct"
        scan.mkdir(parents=True)
        made = _write_dicom("dicom", scan, random)
        like = read_image(scan)
        labels = make_labels(made.array)
        file = folder / patient / "labels.dcm"
        write = write_rtstruct if kind == "rtstruct" else write_dicom_seg
        write(file, labels, like, label_set, version="1")
    sound = replace(made, kind=kind, path=folder, files=(file,))
    return replace(sound, array=labels)


BUNDLES: dict[str, Path] = {}
"""Trained bundles, by what they segment; filled by whoever makes files."""

Writer = Callable[[str, Path, Any], Sound]
WRITERS: dict[str, Writer] = {
    "dicom": _write_dicom,
    "nifti": _write_nifti,
    "nifti gz": _write_nifti,
    "nifti pair": _write_nifti,
    "nrrd": _write_itk,
    "nhdr": _write_itk,
    "mha": _write_itk,
    "mhd": _write_itk,
    "png": _write_picture,
    "tiff": _write_picture,
    "jpg": _write_picture,
    "dataset.json": _write_dataset_json,
    "cases.csv": _write_cases_csv,
    "bundle.json": _write_bundle,
    "label map": _write_label_map,
    "dicom-seg": _write_dicom_labels,
    "rtstruct": _write_dicom_labels,
}
"""Kind of file → who writes it."""

VOLUMES = ("dicom", "nifti", "nifti gz", "nifti pair", "nrrd", "nhdr", "mha", "mhd")  # fmt: skip
PICTURES = ("png", "tiff", "jpg")
"""Kinds that ``medseg segment`` takes."""
