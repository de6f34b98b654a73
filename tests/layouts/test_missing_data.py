"""Whoever names data that are not there learns how to get them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import call

import medseg
from medseg.bundle.bundle import load_bundle
from medseg.datasets.cases import find_cases
from medseg.errors import DatasetError


def test_check_train_and_plan_say_how_to_get_a_known_data_set(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["--data", "Task04_Hippocampus"]
    for arguments in (
        ["check", "hippocampus_mr", *data],
        ["train", "hippocampus_mr", "--device", "cpu", *data],
        ["plan", "Task04_Hippocampus"],
    ):
        assert call(monkeypatch, *arguments) == 2
        error = capsys.readouterr().err
        assert "Task04_Hippocampus: there is no such folder" in error
        assert "medseg download hippocampus downloads" in error


def test_the_bundle_tells_which_data_are_meant_whatever_their_folder(
    tmp_path: Path,
) -> None:
    spec = load_bundle("hippocampus_mr").spec
    with pytest.raises(DatasetError) as caught:
        find_cases(tmp_path / "hippo", spec)
    assert "medseg download hippocampus -o FOLDER" in caught.value.message
    with pytest.raises(DatasetError) as caught:
        find_cases(tmp_path / "mine", load_bundle("phantom_ct").spec)
    assert "download" not in caught.value.message


def test_a_check_without_the_data_says_that_they_were_not_checked() -> None:
    report = medseg.check("hippocampus_mr")
    assert not report.faults
    assert "medseg download hippocampus" in " ".join(report.warnings)
    assert medseg.check("phantom_ct").warnings == ()
