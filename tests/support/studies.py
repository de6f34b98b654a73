"""Labelled DICOM series for tests: what was scanned, and SEG and RTSTRUCT drawn on it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import numpy as np
import pydicom
from pydicom.uid import generate_uid

from medseg.dicom_labels.rtstruct_writer import write_rtstruct
from medseg.dicom_labels.seg_writer import write_dicom_seg
from medseg.io import read_image
from medseg.labels import Label, LabelSet
from medseg.volume import Volume
from support import dicom as made

Kind = Literal["seg", "labelmap", "rtstruct"]
NAMES = LabelSet(
    [
        Label(1, "Liver", 1, (230, 60, 60), "SCT:10200004"),
        Label(2, "tumour", 2, (70, 170, 255), "SCT:108369006"),
    ]
)


def random_labels(seed: int = 0) -> np.ndarray:
    return (
        np.random.default_rng(seed).integers(0, 3, made.SHAPE).astype(np.uint8)
    )


def a_series(
    folder: Path, name: str = "one", patient: str = "ID-1", **changes: Any
) -> Volume:
    shown = made.series(
        made.voxels(seed=crc32(name.encode())),
        name=name,
        PatientID=patient,
        **changes,
    )
    for ds in shown:
        uid = generate_uid(entropy_srcs=[name, str(ds.InstanceNumber)])
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
    return read_image(made.save(folder, shown))


def label(
    file: Path,
    like: Volume,
    labels: np.ndarray,
    kind: Kind = "seg",
    names: LabelSet = NAMES,
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if kind == "rtstruct":
        write_rtstruct(file, labels, like, names, version="1.2.3")
    else:
        as_kind: Any = "labelmap" if kind == "labelmap" else "binary"
        write_dicom_seg(
            file, labels, like, names, version="1.2.3", kind=as_kind
        )
    return file


LABELS = LabelSet(
    [
        Label(1, "liver", 1, (230, 60, 60), "SCT:10200004"),
        Label(2, "tumour", 2, (70, 170, 255), "SCT:108369006"),
        Label(3, "thing", 3, (0, 255, 0)),
    ]
)
NOON = datetime(2024, 5, 6, 12, 0, 0)  # noqa: DTZ001 (DICOM times are local)
REAL_SCANS = (
    "dicom_brain_mr_oblique/Study3/T1post",
    "dicom_brain_mr_oblique/Study3/HCropVolume",
    "dicom_dcm_qa/t1_sagittal_head_first_prone/in",
    "sts_ct_mr_pet/dicom/STS_008/PET/image",
)


def scan(folder: Path, **changes: Any) -> Volume:
    return read_image(made.save(folder / "ct", made.series(**changes)))


def labels_in(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Labels 0 to 3, voxel by voxel at random."""
    return np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)


def write_seg(
    path: Path,
    labels: np.ndarray,
    like: Volume,
    label_set: LabelSet = LABELS,
    **more: Any,
) -> Path:
    write_dicom_seg(path, labels, like, label_set, version="1.2.3", **more)
    return path


def write_rt(
    path: Path,
    labels: np.ndarray,
    like: Volume,
    label_set: LabelSet = LABELS,
    **more: Any,
) -> Path:
    write_rtstruct(path, labels, like, label_set, version="1.2.3", **more)
    return path


def blocks(shape) -> np.ndarray:
    """Labels in boxes of several sizes, every third slice empty."""
    labels = np.zeros(shape, np.uint8)
    for value, part in enumerate((5, 3, 2), start=1):
        labels[tuple(slice(n // (part + 1), 1 + n // part) for n in shape)] = (
            value
        )
    labels[:, :, ::3] = 0
    return labels


def ball(shape) -> np.ndarray:
    """A hollow ball of 1 with a 2 inside, and a 3 beside it that touches the border."""
    places = (
        np.indices(shape) / (np.array(shape) - 1.0).clip(1)[:, None, None, None]
    )
    distance = np.sqrt(((places - 0.5) ** 2).sum(axis=0))
    labels = np.zeros(shape, np.uint8)
    labels[distance < 0.45] = 1
    labels[distance < 0.3] = 0
    labels[distance < 0.15] = 2
    labels[: shape[0] // 8, : shape[1] // 3] = 3
    return labels


def edited(path: Path, change) -> Path:
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path)
    return path
