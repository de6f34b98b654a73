"""``medseg review`` prints the worst masks first."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.bundles import made_spec, trained_bundle
from support.cli import call

from medseg.inference.segmenter import Segmenter
from medseg.testing import write_dataset


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_bundle(
        tmp_path_factory.mktemp("judge") / "trained", made_spec()
    )


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("judge-data")
    return (
        write_dataset(root / "data", 3, shape=(20, 18, 16), spacing=9.0)
        / "imagesTr"
    )


@pytest.fixture
def masks(bundle: Path, scans: Path, tmp_path: Path) -> Path:
    """The bundle's own masks: of scan 0 as it is, of scan 1 half wrong, of scan 2 a tenth."""
    segmenter, folder = Segmenter(bundle, "cpu"), tmp_path / "masks"
    folder.mkdir()
    for number, share in enumerate((0.0, 0.5, 0.1)):
        image = nib.load(scans / f"phantom_{number:03d}.nii.gz")
        labels = segmenter.segment(image).labels
        wrong = np.random.default_rng(number).random(labels.shape) < share
        mask = np.where(wrong, (labels + 1) % 3, labels).astype(np.uint8)
        nib.save(
            nib.Nifti1Image(mask, image.affine),
            folder / f"phantom_{number:03d}_seg.nii.gz",
        )
    return folder


def test_the_command_line_shows_the_worst_first(
    masks: Path,
    bundle: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = [masks, scans, bundle, "-o", tmp_path / "out", "--device", "cpu"]
    assert call(monkeypatch, "review", *asked) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f"phantom_00{number}") for number in (1, 2, 0)]
    assert places == sorted(places)
    assert "not calibrated" in shown
    assert str(tmp_path / "out" / "agreement.csv") in shown


def test_where_no_mask_can_be_reviewed_no_table_is_shown_but_why(
    bundle: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for scan in scans.iterdir():
        (tmp_path / scan.name).write_bytes(scan.read_bytes()[:200])
    asked = ["review", tmp_path, scans, bundle, "--device", "cpu"]
    assert call(monkeypatch, *asked) == 1
    shown = capsys.readouterr().out
    assert "No mask could be reviewed" in shown
    assert "worst label" not in shown
    assert "not reviewed: 3 cases (phantom_000, " in shown
    assert call(monkeypatch, *asked, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert len(told["faults"]) == 3


def test_masks_that_cannot_be_reviewed_are_named_with_exit_code_1(
    masks: Path,
    bundle: Path,
    scans: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torn = masks / "phantom_001_seg.nii.gz"
    torn.write_bytes(torn.read_bytes()[:200])
    for more in ([], ["--json"]):
        assert (
            call(
                monkeypatch,
                "review",
                masks,
                scans,
                bundle,
                "--device",
                "cpu",
                *more,
            )
            == 1
        )
        out = capsys.readouterr().out
        assert "phantom_002" in out
    assert [
        row["case"]
        for row in json.loads(out)["cases"]
        if row["label"] == "mean"
    ] == [
        "phantom_002",
        "phantom_000",
    ]
