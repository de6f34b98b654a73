"""``medseg evaluate`` prints for people and machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli import call

from medseg.testing import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("cli") / "data", 3, shape=(24, 20, 16), spacing=9.0
    )


def test_an_evaluation_tells_machines_and_people_of_lesions_and_differences(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = data / "labelsTr"
    asked = ("evaluate", masks, masks, "--lesions", "--versus", masks)
    assert call(monkeypatch, *asked) == 0
    out = capsys.readouterr().out
    assert "Lesions of label 1: " in out
    assert "minus the others': +0.0000" in out
    assert call(monkeypatch, "evaluate", masks, masks, "--json", *asked[3:]) == 0
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
