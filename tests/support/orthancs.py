"""A real Orthanc for tests, and made-up DICOM series to fill it with."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

from medseg.testing import make_phantom
from support.dicom import slice_dataset
from support.label_servers import free_port
from support.namespaces import Namespace

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@contextlib.contextmanager
def run_orthanc(
    folder: Path, namespace: Namespace | None = None
) -> Iterator[str]:
    """Start an Orthanc with its DICOMweb plugin; yield its address. Skip where there is none."""
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    if not Path(program).is_file() or not PLUGIN.is_file():
        pytest.skip(
            "there is no Orthanc here; on Debian: apt-get install orthanc orthanc-dicomweb"
        )
    port = free_port()
    address = "127.0.0.1" if namespace is None else namespace.address
    before = [] if namespace is None else namespace.command
    config = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": namespace is not None,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*before, program, folder / "orthanc.json"], stdout=log, stderr=log
        )
    url = f"http://{address}:{port}"
    try:
        _wait(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait(url: str, process: Any, log: Path) -> None:
    end = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/system", timeout=5).close()
            return
        time.sleep(0.1)
    raise AssertionError(f"Orthanc did not start:\n{log.read_text()[-2000:]}")


def phantom_series(
    seed: int, modality: str = "CT"
) -> tuple[list[FileDataset], Any]:
    """Return a phantom as a DICOM series, the head's slices first, and its labels.

    Labels have shape ``(i, j, k)`` and lie on the volume that medseg reads from the series.
    """
    volume, labels = make_phantom(seed)
    voxels = np.rint(volume.array[0, ::-1, ::-1]).astype(np.int16)
    spacing = float(volume.affine[0, 0])
    last = [*(np.array(volume.shape[:2]) - 1), 0, 1]
    start = (volume.affine @ last)[:3] * [-1, -1, 1]
    series = generate_uid(entropy_srcs=["phantom", str(seed), modality])
    study = generate_uid(entropy_srcs=["study of", str(seed)])
    made = []
    for k in range(voxels.shape[2]):
        ds = slice_dataset(
            voxels[:, :, k],
            k,
            series,
            StudyInstanceUID=study,
            FrameOfReferenceUID=generate_uid(entropy_srcs=["place", str(seed)]),
            PatientName=f"Phantom^{seed}",
            PatientID=f"PHANTOM-{seed}",
            StudyDate="20260101",
            StudyTime="120000",
            StudyID="1",
            AccessionNumber="",
            ReferringPhysicianName="",
            PatientBirthDate="",
            PatientSex="O",
            SeriesNumber=1,
            SeriesDescription="phantom",
            StudyDescription="made-up phantom",
            Modality=modality,
            ImagePositionPatient=[
                float(start[0]),
                float(start[1]),
                float(start[2] + spacing * k),
            ],
            ImageOrientationPatient=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            PixelSpacing=[spacing, spacing],
            SliceThickness=spacing,
            InstanceNumber=voxels.shape[2] - k,
            RescaleSlope=1,
            RescaleIntercept=0,
            WindowCenter=50,
            WindowWidth=400,
        )
        made.append(ds)
    return made, labels[::-1, ::-1]


def write_series(folder: Path, datasets: list[FileDataset]) -> Path:
    """Write a series into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, ds in enumerate(datasets):
        ds.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
    return folder


def send(url: str, files: list[Path]) -> None:
    """Send DICOM files to Orthanc."""
    for file in files:
        request = urllib.request.Request(
            f"{url}/instances", file.read_bytes(), method="POST"
        )
        urllib.request.urlopen(request, timeout=30).close()
