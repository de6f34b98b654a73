"""``medseg download`` lists data sets, and fetches them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli import call
from support.file_servers import serve_file


def test_all_are_listed_with_what_binds_their_users(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert call(monkeypatch, "download") == 0
    out = capsys.readouterr().out
    for text in ("hippocampus", "28 MB", "CC BY-SA 4.0", "hippocampus_mr"):
        assert text in out
    assert "cite  Antonelli" in out
    assert call(monkeypatch, "download", "--json") == 0
    listed = {
        dataset["name"]: dataset
        for dataset in json.loads(capsys.readouterr().out)
    }
    assert len(listed) >= 10
    assert listed["hippocampus"]["bundles"] == ["hippocampus_mr"]
    assert listed["spleen"]["bundles"] == []


def test_what_a_mirror_sends_instead_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with serve_file(b"something else") as server:
        monkeypatch.setenv("MEDSEG_DOWNLOAD_URL", server.url)
        assert call(monkeypatch, "download", "hippocampus") == 2
        assert server.requests == [("/Task04_Hippocampus.tar", "")]
    assert "checksum is not that of the data set" in capsys.readouterr().err
    assert not (tmp_path / "Task04_Hippocampus").exists()


def test_an_unknown_name_is_answered_with_a_guess(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "download", "hipocampus") == 2
    assert "Did you mean hippocampus?" in capsys.readouterr().err
    assert call(monkeypatch, "download", "-o", "x") == 2
    assert "goes with the name" in capsys.readouterr().err
