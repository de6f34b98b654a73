"""Whoever gives something else instead of a bundle learns what it is and what to do."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from support.cli import call

import medseg
from medseg.commands.bundle_argument import open_bundle
from medseg.errors import BundleError
from medseg.testing import write_dataset


def ask(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert path.name not in caught.value.message
    return str(caught.value)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("argument")
    return write_dataset(home / "my data", 2, shape=(24, 20, 16), spacing=9.0)


def test_a_data_set_is_answered_with_the_commands_that_go_with_it(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = ask(data)
    assert "this is a data set of 2 cases, not a bundle" in text
    assert f'medseg plan "{data}" -o my_data.json' in text
    assert "then medseg train my_data.json" in text
    assert f'medseg train "{data}" --budget 20m' in text
    for command in ("train", "check"):
        assert call(monkeypatch, command, data) == 2
        output = capsys.readouterr()
        assert "-o my_data.json" in output.err + output.out


def test_lists_of_cases_are_data_sets_too(data: Path, tmp_path: Path) -> None:
    assert "this is a list of cases" in ask(data / "dataset.json")
    table = tmp_path / "cases.csv"
    table.write_text("image,label\n")
    assert f"medseg plan {table} -o cases.json" in ask(table)


def test_other_things_are_named(data: Path, tmp_path: Path) -> None:
    archive = tmp_path / "Dataset001.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("dataset.json", "{}")
    assert "is an archive; unpack it first" in ask(archive)
    scan = next((data / "imagesTr").iterdir())
    assert "this is a single image" in ask(scan)
    results = tmp_path / "made_by_segment"
    results.mkdir()
    (results / "ledger.jsonl").touch()
    assert f"medseg evaluate {results} REFERENCES" in ask(results)
    (tmp_path / "empty").mkdir()
    assert "as a data set it cannot be used" in ask(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("notes")
    assert "this is no bundle" in ask(tmp_path / "notes.txt")


def test_a_name_of_an_open_data_set_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "medseg download hippocampus" in ask(Path("hippocampus"))
    assert "it does not exist" in ask(Path("nothing"))


def test_a_bundle_is_opened_right_or_wrong(tmp_path: Path) -> None:
    assert open_bundle("hippocampus_mr").spec.name == "hippocampus_mr"
    file = tmp_path / "bundle.json"
    file.write_text("{")
    with pytest.raises(BundleError, match="not valid JSON"):
        open_bundle(tmp_path)
    file.write_text(json.dumps({"name": "x"}))
    with pytest.raises(BundleError) as caught:
        open_bundle(file)
    assert caught.value.faults


def test_a_budget_goes_with_a_bundle_too_and_with_nothing_else(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(medseg.MedsegError, match="not a valid time budget"):
        medseg.train("hippocampus_mr", budget="soon", device="cpu")
    with pytest.raises(medseg.MedsegError, match="--data goes with a bundle"):
        medseg.train(data, data=data, budget="20m", device="cpu")
    with pytest.raises(medseg.CheckpointError, match="of this data set"):
        medseg.train(data, budget="20m", resume=True, device="cpu")
    with pytest.raises(medseg.DatasetError, match="no list of cases"):
        medseg.train(tmp_path, budget="20m", device="cpu")
    with pytest.raises(medseg.BundleError, match="an open data set, not a"):
        medseg.train("hippocampus", budget="20m", device="cpu")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(medseg.MedsegError, match="do not plan together"):
        medseg.train(data, budget="20m", device="cpu")
    assert not list(tmp_path.iterdir())
