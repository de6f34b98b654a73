"""Labelled DICOM series for tests: what was scanned, and SEG and RTSTRUCT drawn on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import numpy as np
from pydicom.uid import generate_uid

from medseg.io import read_image
from medseg.io.dicom.rtstruct_writer import write_rtstruct
from medseg.io.dicom.seg_writer import write_dicom_seg
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
    return np.random.default_rng(seed).integers(0, 3, made.SHAPE).astype(np.uint8)


def a_series(folder: Path, name: str = "one", patient: str = "ID-1", **changes: Any) -> Volume:
    shown = made.series(
        made.voxels(seed=crc32(name.encode())), name=name, PatientID=patient, **changes
    )
    for ds in shown:
        uid = generate_uid(entropy_srcs=[name, str(ds.InstanceNumber)])
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
    return read_image(made.save(folder, shown))


def label(
    file: Path, like: Volume, labels: np.ndarray, kind: Kind = "seg", names: LabelSet = NAMES
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if kind == "rtstruct":
        write_rtstruct(file, labels, like, names, version="1.2.3")
    else:
        as_kind: Any = "labelmap" if kind == "labelmap" else "binary"
        write_dicom_seg(file, labels, like, names, version="1.2.3", kind=as_kind)
    return file
