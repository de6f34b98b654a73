"""Files written by medseg 0.1.0, before its modules were renamed, still work.

``tests/former/`` holds them; ``tests/support/former_files.py`` made them, with that release.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from support.former_files import write_series

import medseg
from medseg.testing import write_dataset

FORMER = Path(__file__).parent / "former"
HASHES: dict[str, str] = json.loads((FORMER / "hashes.json").read_text())


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def voxels(file: Path) -> bytes:
    return np.asarray(nib.load(file).dataobj).tobytes()


@pytest.fixture
def batch(tmp_path: Path) -> dict[str, Any]:
    return {"device": "cpu", "backend": "torch", "report": False}


def test_a_former_bundle_gives_the_same_label_maps(
    tmp_path: Path, batch: dict[str, Any]
) -> None:
    medseg.segment(FORMER / "run", FORMER / "test", tmp_path / "out", **batch)
    for number in range(3):
        name = f"phantom_{number:03d}.nii.gz"
        assert (
            digest(voxels(tmp_path / "out" / name)) == HASHES[f"results/{name}"]
        )
    former, today = (
        pd.read_csv(folder / "volumes.csv")
        for folder in (FORMER / "results", tmp_path / "out")
    )
    # What was added since stands behind.
    assert list(today.columns)[: len(former.columns)] == list(former.columns)
    today = today[former.columns]
    # Numbers that mean nothing, since the bundle was never calibrated, stand there no more.
    guesses = [name for name in former.columns if "expected_dice" in name]
    assert today[guesses].isna().all(axis=None)
    pd.testing.assert_frame_equal(
        former.drop(columns=guesses), today.drop(columns=guesses), rtol=1e-3
    )


def test_a_former_bundle_gives_the_same_dicom_results(
    tmp_path: Path, batch: dict[str, Any]
) -> None:
    series = write_series(tmp_path / "series", 7)
    formats = ["nifti", "dicom-seg", "rtstruct"]
    medseg.segment(
        FORMER / "run", series, tmp_path / "out", formats=formats, **batch
    )
    (nifti,) = (tmp_path / "out").glob("*.nii.gz")
    assert digest(voxels(nifti)) == HASHES["dicom/nifti"]
    (seg,) = (tmp_path / "out").glob("*.seg.dcm")
    assert digest(pydicom.dcmread(seg).PixelData) == HASHES["dicom/seg"]
    (rtstruct,) = (tmp_path / "out").glob("*.rtstruct.dcm")
    contours = [
        str(list(contour.ContourData))
        for roi in pydicom.dcmread(rtstruct).ROIContourSequence
        for contour in getattr(roi, "ContourSequence", [])
    ]
    assert (
        digest(*(text.encode() for text in contours))
        == HASHES["dicom/rtstruct"]
    )


def test_a_former_batch_goes_on_where_it_was(
    tmp_path: Path, batch: dict[str, Any]
) -> None:
    shutil.copytree(FORMER / "results", tmp_path / "results")
    done = medseg.segment(
        FORMER / "run", FORMER / "test", tmp_path / "results", **batch
    )
    assert [entry.state for entry in done.results] == ["skipped"] * 3


def test_former_results_get_the_same_scores(tmp_path: Path) -> None:
    references = write_dataset(
        tmp_path / "test", 3, seed=1000, shape=(36, 32, 26), spacing=6.0
    )
    medseg.evaluate(FORMER / "results", references, tmp_path / "scores")
    for name in ("evaluation.csv", "summary.csv"):
        assert (tmp_path / "scores" / name).read_bytes() == (
            FORMER / name
        ).read_bytes()


def test_a_former_run_that_was_stopped_is_resumed(tmp_path: Path) -> None:
    shutil.copytree(FORMER / "stopped", tmp_path / "run")
    data = write_dataset(tmp_path / "data", 8, shape=(36, 32, 26), spacing=6.0)
    medseg.train(
        tmp_path / "run" / "bundle.json",
        data=data,
        out=tmp_path / "run",
        resume=True,
    )
    former, today = (
        json.loads((folder / "metrics.json").read_text())
        for folder in (FORMER / "run", tmp_path / "run")
    )
    steps = [validation["step"] for validation in former["validations"]]
    assert [validation["step"] for validation in today["validations"]] == steps


def test_a_former_bundle_is_fine_tuned(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", 8, shape=(36, 32, 26), spacing=6.0)
    run = medseg.train(
        FORMER / "run" / "bundle.json",
        data=data,
        out=tmp_path / "run",
        start_from=FORMER / "run",
        overrides=["training.steps=25"],
    )
    assert medseg.load_bundle(run).spec.name == "former"


def test_a_former_mlflow_model_loads_and_segments(tmp_path: Path) -> None:
    from mlflow import pyfunc

    model = pyfunc.load_model(str(FORMER / "model"))
    scans = pd.DataFrame(
        {"scan": [str(FORMER / "test" / "phantom_000.nii.gz")]}
    )
    (row,) = model.predict(scans, params={"out": str(tmp_path)}).to_dict(
        "records"
    )
    assert row["error"] == ""
    assert (
        digest(voxels(Path(row["label_map"])))
        == HASHES["results/phantom_000.nii.gz"]
    )
