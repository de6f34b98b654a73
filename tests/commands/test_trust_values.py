"""A data set that says something else than the bundle is refused, unless a person insists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.bundles import content, made_spec, write_json
from support.cli import call

from medseg import DatasetError, check
from medseg.datasets.dataset import find_folds, open_dataset
from medseg.testing import write_dataset

SWAPPED = {"0": "background", "1": "kidney", "2": "liver"}


def write_data(root: Path, **changes: Any) -> Path:
    """Write phantoms whose ``dataset.json`` says something else."""
    data = write_dataset(root, 3, shape=(24, 20, 16), spacing=9.0)
    listing = data / "dataset.json"
    said = json.loads(listing.read_text()) | changes
    listing.write_text(json.dumps(said))
    return data


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_json(tmp_path / "bundle", content())


def test_check_names_both_sides_and_fails(
    tmp_path: Path,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write_data(tmp_path / "data", labels=SWAPPED)
    assert call(monkeypatch, "check", bundle, "--data", data) == 2
    said = " ".join(capsys.readouterr().out.split())
    (line,) = said.split("fault: ")[1:]
    assert "kidney = 1, liver = 2" in line
    assert "liver = 1, kidney = 2" in line
    insist = ("check", bundle, "--data", data, "--trust-values")
    assert call(monkeypatch, *insist) == 0


def test_check_tells_a_modality_and_an_order_of_channels(
    tmp_path: Path, bundle: Path
) -> None:
    data = write_data(tmp_path / "data", modality={"0": "MRI"})
    channels = [{"name": "CT", "modality": "CT"}]
    made = write_json(tmp_path / "ct", content(channels=channels))
    (fault,) = check(made, data=data).faults
    assert fault.where == "channels.0"
    assert check(made, data=data, trust_values=True).faults == ()


def test_training_is_refused_even_without_bad_cases(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", labels=SWAPPED)
    spec = made_spec(data={"folds": 2})
    cache = tmp_path / "cache"
    for open_data in (open_dataset, find_folds):
        arguments: tuple[Any, ...] = (data, spec)
        arguments += (0, cache) if open_data is open_dataset else (cache,)
        with pytest.raises(DatasetError, match="contradict each other") as bad:
            open_data(*arguments, skip_bad_cases=True)
        (fault,) = bad.value.faults
        assert "kidney = 1, liver = 2" in fault.what
    assert not cache.exists()
    opened = open_dataset(data, spec, 0, cache, trust_values=True)
    assert len(opened.training) == 2


def test_files_that_hold_the_bundles_values_settle_the_numbering(
    tmp_path: Path,
) -> None:
    named = {"11": "liver", "12": "kidney"}
    data = write_data(tmp_path / "data", labels=named)
    spec = made_spec(data={"folds": 2})
    cache = tmp_path / "cache"
    for _ in range(2):
        assert len(open_dataset(data, spec, 0, cache).training) == 2
    made = write_json(tmp_path / "bundle", content())
    assert check(made, data=data).faults == ()


def test_numbering_that_no_file_settles_is_a_fault_beside_those_of_cases(
    tmp_path: Path,
) -> None:
    labels = [
        {"index": 1, "name": "liver", "value": 11},
        {"index": 2, "name": "kidney", "value": 12},
    ]
    data = write_data(tmp_path / "data")
    made = write_json(tmp_path / "bundle", content(labels=labels))
    faults = check(made, data=data).faults
    where = [fault.where for fault in faults]
    assert where == ["labels", "labels", *(f"phantom_00{n}" for n in range(3))]
    assert "liver = 1, and the bundle liver = 11" in faults[0].what


def test_train_ends_with_one_clean_line_per_fault(
    tmp_path: Path,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write_data(tmp_path / "data", labels=SWAPPED)
    out = tmp_path / "run"
    arguments = ("train", bundle, "--data", data, "--out", out, "--device")
    assert call(monkeypatch, *arguments, "cpu") == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.count("kidney = 1, liver = 2") == 1
    assert not out.exists()


def test_train_goes_by_the_bundle_when_told_to(
    tmp_path: Path,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write_data(tmp_path / "data", labels=SWAPPED)
    (data / "labelsTr" / "phantom_001.nii.gz").write_bytes(b"no label")
    out = tmp_path / "run"
    arguments = (
        "train",
        bundle,
        "--data",
        data,
        "--out",
        out,
        "--trust-values",
    )
    # Only what is wrong with a file is left to say, so that nothing need be trained here.
    for fold in ("0", "all"):
        assert call(monkeypatch, *arguments, "--fold", fold) == 2
        said = capsys.readouterr().err
        assert "phantom_001" in said
        assert "kidney = 1" not in said
