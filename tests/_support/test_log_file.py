"""A log is added to, and nothing else is."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from medseg._support.log_file import LogFile
from medseg.errors import OutputError


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(b"scan", mtime=0),
        b'{"scan": "a"}\n',
        b"II*\x00\x08\x00",
        bytes(9),
    ],
    ids=["nifti", "ledger", "picture", "zeros"],
)
def test_nothing_is_added_to_a_scan_or_a_ledger(
    content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(OutputError, match="this file is no log"):
        LogFile(file, "segment")
    assert file.read_bytes() == content


def test_an_address_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("s3://key:secret@bucket/night.log", "GS:/bucket/night.log"):
        with pytest.raises(OutputError, match="object store") as refused:
            LogFile(place, "segment")
        assert "secret" not in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [b"", b"\nNight of 1 May\n", "Größe\t".encode("latin-1"), b"\x1b[1mbold"],
    ids=["empty", "text", "latin", "colours"],
)
def test_a_log_of_other_programs_is_added_to(
    content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "night.log"
    file.write_bytes(content)
    LogFile(file, "segment").write("ends")
    assert file.read_bytes().startswith(content)
    assert file.read_bytes().endswith(b" ends\n")
