"""One folder as archives leave them, full of traps, from the call to the results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from support import dicom as made
from support.cli import call

from medseg.commands.segment import SEARCHING, segment
from medseg.datasets.scans import find_scans
from medseg.dicom_labels.rtstruct_writer import write_rtstruct
from medseg.dicom_labels.seg_writer import write_dicom_seg
from medseg.errors import MedsegError
from medseg.events import Event, Progress
from medseg.io import read_image, read_labels
from medseg.labels import Label, LabelSet

SHAPE = (14, 12, 8)
SECRETS = (
    "Geheim",
    "Müller",
    "Jürgen",
    "Łukasz",
    "ID-4711",
    "19700101",
    "Muster",
)
LABELS = LabelSet((Label(1, "liver", 1, (200, 0, 0)),))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def a_series(seed: int, name: str, **changes: object) -> list[FileDataset]:
    return made.series(made.voxels(SHAPE, seed), name, **changes)


def a_report(file: Path) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = uids.BasicTextSRStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.99"
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3.99"
    ds.SeriesInstanceUID, ds.Modality, ds.PatientName = (
        "1.2.3.98",
        "SR",
        "Geheim^Anna",
    )
    ds.save_as(file, enforce_file_format=True)


def archive(root: Path) -> Path:
    """Write the folder; four series in it can be segmented."""
    study = root / "Müller^Jürgen 1970" / "CT ..\n Thorax"
    spread = a_series(
        1, "one", PatientName="Müller^Jürgen", SpecificCharacterSet="ISO_IR 100"
    )
    made.save(study / "a", spread[:3], "x")
    made.save(study / "b", spread[3:], "y")
    scan = read_image(study)
    write_dicom_seg(
        study / "b" / "seg.dcm",
        np.ones(SHAPE, np.uint8),
        scan,
        LABELS,
        version="1",
    )
    write_rtstruct(
        study / "b" / "rt.dcm",
        np.ones(SHAPE, np.uint8),
        scan,
        LABELS,
        version="1",
    )
    a_report(study / "b" / "report.dcm")

    polish = {"PatientName": "Łukasz^Żak", "SpecificCharacterSet": "ISO_IR 192"}
    same_uid = a_series(2, "one", StudyInstanceUID="1.2.3.4", **polish)
    made.save(root / "Łukasz" / "Muster..", same_uid)

    padded = made.save(root / "padded", a_series(3, "three"))
    for file in padded.iterdir():
        with file.open("ab") as opened:
            opened.write(b"\0" * 37)
        file.rename(file.with_name(f"{file.name}\n.."))
    (padded / "empty").touch()

    broken = made.save(root / "broken", a_series(4, "four"))
    (broken / "lost.dcm").touch()

    # The same files once more.
    shutil.copytree(root / "Łukasz", root / "Łukasz copy")
    for number in range(1500):
        folder = root / "foreign" / str(number % 7)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"Geheim {number}.txt").write_bytes(b"\x08\0" * number)
    (root / "foreign" / "loop").symlink_to(root)
    (root / "foreign" / "0" / "self").symlink_to(
        root / "foreign" / "0" / "self"
    )
    return root


def test_an_archive_full_of_traps(
    untrained_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    root = archive(tmp_path / "Geheim archive")
    out = root / "results"
    bundle = untrained_bundle()
    told: list[Event] = []
    batch = segment(
        bundle,
        root,
        out,
        formats=["nifti", "dicom-seg"],
        listeners=[told.append],
    )
    good = [entry for entry in batch.results if entry.state == "done"]
    assert len(good) == 3
    assert len({entry.scan for entry in batch.results}) == len(batch.results)
    failed = {entry.error for entry in batch.failed}
    assert any("damaged or truncated DICOM: " in error for error in failed)
    assert any("link to" in error for error in failed)
    arrays = {
        made.voxels(SHAPE, seed).astype(np.float32).tobytes()
        for seed in (1, 2, 3)
    }
    scans = {scan.name: scan for scan in find_scans(root, 1).scans}
    for entry in good:
        scan = read_image(scans[entry.scan].parts[0])
        arrays.remove(scan.array[0].tobytes())
        assert read_labels(out / f"{entry.scan}.nii.gz").on_same_grid(
            scan, 1e-3
        )
        seg = pydicom.dcmread(out / f"{entry.scan}.seg.dcm")
        source = pydicom.dcmread(scan.header.files[0])
        assert seg.PatientName == source.PatientName
        assert seg.StudyInstanceUID == source.StudyInstanceUID
    assert arrays == set()

    searched = [
        event
        for event in told
        if isinstance(event, Progress) and event.task == SEARCHING
    ]
    assert searched[-1].done == searched[-1].total > 1500
    assert 20 < len(searched) < 100

    for file in (path for path in out.rglob("*") if path.is_file()):
        assert not any(
            secret in str(file.relative_to(out)) for secret in SECRETS
        )
        assert not {"\n", " "} & set(file.name)
        if not file.name.endswith(".seg.dcm"):
            content = file.read_bytes()
            assert not any(secret.encode() in content for secret in SECRETS), (
                file
            )
            assert not any(
                json.dumps(secret)[1:-1].encode() in content
                for secret in SECRETS
            ), file

    again = segment(bundle, root, out, formats=["nifti", "dicom-seg"])
    assert [
        entry.scan for entry in again.results if entry.state == "skipped"
    ] == [entry.scan for entry in good]


def test_uneven_slices_and_names_from_headers(
    untrained_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    datasets = a_series(5, "five", StudyDate="20240101", SeriesNumber=3)
    for k, ds in enumerate(datasets):
        made.move(ds, made.NORMAL * 0.1 * k**2)
    made.save(tmp_path / "scans", datasets)
    bundle = untrained_bundle()
    (refused,) = segment(bundle, tmp_path / "scans", tmp_path / "out").results
    assert "--resample-uneven" in refused.error
    batch = segment(
        bundle,
        tmp_path / "scans",
        tmp_path / "named",
        formats=["nifti", "dicom-seg"],
        resample_uneven=True,
        names_from_headers=True,
    )
    (entry,) = batch.results
    assert entry.scan == "ID-4711_20240101_3"
    assert "uneven" in entry.warnings[0]
    labels = read_labels(tmp_path / "named" / "ID-4711_20240101_3.nii.gz")
    assert labels.shape == entry.shape
    assert entry.shape[2] > SHAPE[2]


def time_points(count: int) -> list[FileDataset]:
    """Slices of several volumes that only their instance numbers tell apart."""
    datasets = []
    for time in range(count):
        volume = a_series(time, "dynamic")
        for k, ds in enumerate(volume):
            ds.InstanceNumber = time * len(volume) + k + 1
            ds.SOPInstanceUID += f".{time}"
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        datasets.extend(volume)
    return datasets


def test_a_4d_series_is_split_by_instance_numbers_if_asked_for(
    untrained_bundle: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scans = made.save(tmp_path / "scans", time_points(2))
    bundle = untrained_bundle()
    (refused,) = segment(bundle, scans, tmp_path / "out").results
    assert "--split-4d instance-number" in refused.error
    arguments = ["segment", bundle, scans, tmp_path / "split"]
    arguments += ["--split-4d", "instance-number", "--no-report", "--json"]
    assert call(monkeypatch, *arguments) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["state"] for entry in entries] == ["done", "done"]
    assert len({entry["content"] for entry in entries}) == 2
    for entry in entries:
        labels = read_labels(tmp_path / "split" / f"{entry['scan']}.nii.gz")
        assert labels.shape == SHAPE
        assert np.allclose(labels.affine, made.affine(), atol=1e-5)
    with pytest.raises(MedsegError, match="split by instance-number"):
        segment(bundle, scans, tmp_path / "other", split_4d="time")


def test_what_lies_beside_a_series_is_told_of_its_result(
    untrained_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    datasets = a_series(1, "orphaned")
    datasets[-1].SeriesInstanceUID = "1.2.3"
    scans = made.save(tmp_path / "scans", datasets)
    batch = segment(untrained_bundle(), scans, tmp_path / "out")
    (entry,) = [each for each in batch.results if each.is_good]
    (warning,) = [text for text in entry.warnings if "continue this" in text]
    assert warning in (tmp_path / "out" / "report.html").read_text()
