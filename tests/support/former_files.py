"""Makes ``tests/former/``: what medseg wrote before its modules were renamed.

Run with the commit that is to be remembered, from its root:

    PYTHONPATH=.:tests python -m support.former_files OUT
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import torch

import medseg
from medseg.events import Event, ValidationDone
from medseg.testing import write_dataset

BUNDLE = {
    "name": "former",
    "channels": [{"name": "CT", "modality": "CT"}],
    "labels": [
        {"index": 1, "name": "liver", "code": "SCT:10200004"},
        {"index": 2, "name": "kidney", "code": "SCT:64033007"},
    ],
    "data": {"folds": 4},
    "preprocessing": {
        "spacing_mm": [6, 6, 6],
        "intensity": {"kind": "window", "low": -200, "high": 300},
    },
    "network": {"channels": [4, 8, 8], "strides": [1, 2, 2]},
    "training": {
        "patch": [16, 16, 16],
        "batch_size": 2,
        "steps": 240,
        "optimizer": "adamw",
        "learning_rate": 0.01,
        "precision": "fp32",
        "validate_every": 120,
        "checkpoint_every": 60,
    },
}


class _Stop(Exception):
    pass


def _stop_at_validation(event: Event) -> None:
    if isinstance(event, ValidationDone):
        raise _Stop


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _contours(rtstruct: pydicom.Dataset) -> list[str]:
    return [
        str(list(contour.ContourData))
        for roi in rtstruct.ROIContourSequence
        for contour in getattr(roi, "ContourSequence", [])
    ]


def write_series(folder: Path, seed: int) -> Path:
    from support.orthancs import phantom_series
    from support.orthancs import write_series as write

    return write(folder, phantom_series(seed)[0])


def main() -> None:
    out = Path(sys.argv[1])
    work = out / "work"
    data = write_dataset(work / "data", 8, shape=(36, 32, 26), spacing=6.0)
    (work / "bundle.json").write_text(json.dumps(BUNDLE))
    run = medseg.train(
        work / "bundle.json", data=data, out=work / "run", fold=0, device="cpu"
    )
    with contextlib.suppress(_Stop):
        medseg.train(
            work / "bundle.json",
            data=data,
            out=work / "stopped",
            fold=0,
            device="cpu",
            listeners=[_stop_at_validation],
        )
    tests = write_dataset(
        work / "test", 3, seed=1000, shape=(36, 32, 26), spacing=6.0
    )
    medseg.segment(
        run,
        tests / "imagesTr",
        work / "results",
        device="cpu",
        backend="torch",
        report=False,
    )
    medseg.evaluate(work / "results", tests, work / "scores")
    write_series(work / "series", 7)
    medseg.segment(
        run,
        work / "series",
        work / "dicom",
        device="cpu",
        backend="torch",
        report=False,
        formats=["nifti", "dicom-seg", "rtstruct"],
    )
    hashes: dict[str, str] = {}
    for file in sorted((work / "results").glob("*.nii.gz")):
        hashes[f"results/{file.name}"] = _digest(
            np.asarray(nib.load(file).dataobj).tobytes()
        )
    for file in sorted((work / "dicom").iterdir()):
        if file.name.endswith(".nii.gz"):
            hashes["dicom/nifti"] = _digest(
                np.asarray(nib.load(file).dataobj).tobytes()
            )
        elif file.name.endswith(".dcm"):
            ds = pydicom.dcmread(file)
            if ds.Modality == "SEG":
                hashes["dicom/seg"] = _digest(ds.PixelData)
            else:
                contours = [
                    str(list(c.ContourData))
                    for r in ds.ROIContourSequence
                    for c in getattr(r, "ContourSequence", [])
                ]
                hashes["dicom/rtstruct"] = _digest(
                    *(text.encode() for text in contours)
                )
    weights = torch.load(run / "models" / "model.pt", weights_only=True)
    hashes["weights"] = _digest(
        *(w.numpy().tobytes() for w in weights.values())
    )
    for file in sorted((work / "scores").glob("*.csv")):
        hashes[f"scores/{file.name}"] = _digest(file.read_bytes())
    (out / "hashes.json").write_text(
        json.dumps(hashes, indent=1, sort_keys=True) + "\n"
    )


if __name__ == "__main__":
    main()
