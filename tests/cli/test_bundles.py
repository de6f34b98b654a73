"""``medseg bundles`` and ``medseg --version``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli import call

import medseg
from medseg.bundle.shipped import list_shipped_bundles


def test_what_comes_with_medseg_is_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "bundles") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(list_shipped_bundles())
    assert call(monkeypatch, "bundles", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert Path(listed["phantom_ct"]["path"], "bundle.json").is_file()


def test_a_shipped_bundle_is_checked_by_its_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, "check", "phantom_ct")
    said = capsys.readouterr()
    assert "does not exist" not in said.err.partition("data")[0]


def test_the_version_is_that_of_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"medseg {medseg.__version__}\n"
    assert medseg.__version__[0].isdigit()
