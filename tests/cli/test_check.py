"""``medseg check`` prints for people and machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.bundles import content, write_json
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


def test_check_tells_machines_in_json(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = write_json(
        tmp_path, content(labels=[{"index": 1, "name": "liver"}])
    )
    assert call(monkeypatch, "check", bundle, "--data", data, "--json") == 2
    report = json.loads(capsys.readouterr().out)
    assert report["cases"] == 0
    assert len(report["faults"]) == 3
    assert "2 (" in report["faults"][0]["what"]
    assert call(monkeypatch, "check", bundle, "--data", data) == 2
    printed = capsys.readouterr().out
    assert "fault: 3 cases (phantom_000, phantom_001, phantom_002): " in printed
    assert printed.count("fault: ") == 1
    assert "3 faults; 0 usable cases" in printed


def test_check_says_when_all_is_well(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = write_json(tmp_path, content())
    assert call(monkeypatch, "check", bundle, "--data", data) == 0
    assert "no faults; 3 usable cases" in capsys.readouterr().out
