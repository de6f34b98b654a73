"""``medseg evaluate`` prints for people and machines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.cli import call

from medseg.testing import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("cli") / "data",
        3,
        shape=(24, 20, 16),
        spacing=9.0,
    )


def test_an_evaluation_tells_machines_and_people_of_lesions_and_differences(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    masks = data / "labelsTr"
    asked = ("evaluate", masks, masks, "--lesions", "--versus", masks)
    assert call(monkeypatch, *asked) == 0
    out = capsys.readouterr().out
    assert "Lesions of liver: " in out
    assert "minus the others': +0.0000" in out
    assert (
        call(monkeypatch, "evaluate", masks, masks, "--json", *asked[3:]) == 0
    )
    said = json.loads(capsys.readouterr().out)
    assert {one["n"] for one in said["differences"]} == {3}
    assert said["lesions"]["label 1"]["there"] >= 3
    assert said["faults"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("masks",),
        ("--without-references", "masks"),
        ("--without-references", "masks", "--bundle", "b", "--scans", "s"),
        ("masks", "references", "--scans", "s"),
        ("masks", "references", "--device", "cpu"),
    ],
)
def test_the_former_call_of_evaluate_says_where_it_went(
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "evaluate", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("medseg review MASKS SCANS BUNDLE")


def test_labels_are_printed_by_their_names_in_the_dataset_json(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    masks = data / "labelsTr"
    assert call(monkeypatch, "evaluate", masks, data, "--lesions") == 0
    printed = capsys.readouterr().out
    assert " liver " in printed
    assert "Lesions of kidney: " in printed
    assert "label 1" not in printed


def test_many_pairs_that_cannot_be_scored_are_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = np.zeros((2, 2, 2), np.uint8)
    labels[0] = 1
    image = nib.Nifti1Image(labels, np.eye(4))
    for number in range(23):
        path = tmp_path / "labelsTr" / f"case_{number:02d}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nib.save(image, path)
    masks = tmp_path / "masks"
    masks.mkdir()
    nib.save(image, masks / "case_00.nii.gz")
    assert call(monkeypatch, "evaluate", masks, tmp_path / "labelsTr") == 1
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if "not scored" in line]
    assert "22 cases (case_01, case_02, case_03" in line
    assert "and 17 more): has no prediction" in line


def test_pairs_that_cannot_be_scored_are_named_with_exit_code_1(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    masks = tmp_path / "masks"
    shutil.copytree(data / "labelsTr", masks)
    torn = masks / "phantom_001.nii.gz"
    torn.write_bytes(torn.read_bytes()[:100])
    assert call(monkeypatch, "evaluate", masks, data) == 1
    assert "not scored: phantom_001: " in capsys.readouterr().out
    assert call(monkeypatch, "evaluate", masks, data, "--json") == 1
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert fault["where"] == "phantom_001"
