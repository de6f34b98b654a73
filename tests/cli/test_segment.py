"""``medseg segment`` prints what was segmented."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import pytest
from support import dicom as made
from support.bundles import made_spec, trained_bundle
from support.cli import call
from support.scans import affine_of, write_scan

from medseg.cli.batch_output import _locate
from medseg.commands.batch import Batch
from medseg.inference.ledger_entry import Entry
from medseg.testing import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("cli") / "data",
        3,
        shape=(24, 20, 16),
        spacing=9.0,
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_bundle(
        tmp_path_factory.mktemp("cli-bundle") / "trained", made_spec()
    )


def test_a_failed_scan_is_exit_code_1_and_named(
    bundle: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    good = (data / "imagesTr" / "phantom_000.nii.gz").read_bytes()
    (scans / "good.nii.gz").write_bytes(good)
    (scans / "torn.nii.gz").write_bytes(good[: len(good) // 2])
    assert (
        call(
            monkeypatch,
            "segment",
            bundle,
            scans,
            tmp_path / "out",
            "--device",
            "cpu",
        )
        == 1
    )
    out = capsys.readouterr().out
    assert "1 of 2 scans segmented" in out
    assert "torn" in out
    assert (tmp_path / "out" / "good.nii.gz").is_file()
    assert not (tmp_path / "out" / "torn.nii.gz").exists()


def test_scans_that_failed_for_one_reason_are_told_in_one_line(
    bundle: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    good = (data / "imagesTr" / "phantom_000.nii.gz").read_bytes()
    for number in range(7):
        (scans / f"torn{number}.nii.gz").write_bytes(good[: len(good) // 2])
    (scans / "other.nii.gz").write_bytes(b"no image at all")
    assert call(monkeypatch, "segment", bundle, scans, tmp_path / "out") == 1
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if "failed: " in line]
    assert len(lines) == 2
    torn = next(line for line in lines if "7 scans" in line)
    assert "torn4.nii.gz and 2 more): the first: " in torn


def test_a_scan_that_lacks_a_format_is_exit_code_1_and_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("highdicom")
    spec = made_spec(channels=[{"name": "any"}])
    made.save(tmp_path / "scans", made.series(FrameOfReferenceUID=None))
    order = [
        *("segment", trained_bundle(tmp_path / "trained", spec)),
        *(tmp_path / "scans", tmp_path / "out", "--device", "cpu"),
        *("--format", "nifti", "--format", "dicom-seg"),
    ]
    for _ in range(2):  # a call that resumes says it again
        assert call(monkeypatch, *order) == 1
        out = capsys.readouterr().out
        assert "1 of 1 scans segmented" in out
        assert "1 of them without a format asked for" in out
        assert "lacks dicom-seg: " in out
        assert "no valid Frame of Reference UID" in out


@pytest.mark.parametrize("report", ["--report", "--no-report"])
def test_scans_with_warnings_are_counted_and_named(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    report: str,
) -> None:
    for number in range(7):
        file = tmp_path / f"scans/scan_{number}.nii.gz"
        write_scan(file, number, (16, 16, 16), affine_of((9.0, 9.0, 9.0)))
        if number:
            image = nib.load(file)
            voxels = image.get_fdata() / 1000 + 1  # no longer in HU
            nib.save(nib.Nifti1Image(voxels, image.affine), file)
    out = tmp_path / "out"
    order = ("segment", bundle, tmp_path / "scans", out, "--device", "cpu")
    assert call(monkeypatch, *order, report) == 0
    printed = capsys.readouterr().out
    (line,) = [each for each in printed.splitlines() if "with warnings" in each]
    place = "report.html" if report == "--report" else "ledger.jsonl"
    assert line.startswith(f"  6 scans with warnings, told in {out / place}: ")
    assert line.endswith(" and 1 more")
    assert "scan_0" not in line
    told = (out / place).read_text()
    assert told.count("shows no air") == 6


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("a.nii.gz", "a.nii.gz"),
        ("a_0000.nii.gz", "a_0000.nii.gz"),
        ("a", "a"),
        ("a.b.nii.gz", "a (a.b.nii.gz)"),
        ("ab/scan.nii.gz", "a (ab/scan.nii.gz)"),
        ("", "a"),
    ],
)
def test_a_place_that_goes_on_is_not_taken_for_the_name_of_a_scan(
    place: str, shown: str
) -> None:
    failed = Entry(scan="a", state="failed", error="x")
    batch = Batch(Path("results"), results=[failed], places={"a": place})
    assert _locate(batch, failed) == shown
