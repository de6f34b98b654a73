"""The audit log: every change, by whom, and nothing lost."""

from __future__ import annotations

import contextvars
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from medseg import OutputError
from medseg.label_server.audit import REQUESTER, AuditLog, Requester


def test_a_line_says_when_who_where_and_what(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "state" / "audit.jsonl")
    before = datetime.now(UTC)
    contextvars.copy_context().run(
        _write_as, log, Requester("anna", "192.0.2.7")
    )
    log.write("version promoted", version="0002")
    first, second = log.read_lines()
    assert list(first) == ["when", "who", "address", "action", "case", "labels"]
    assert list(first.values())[1:] == [
        "anna",
        "192.0.2.7",
        "label saved",
        "Fälle",
        3,
    ]
    assert (
        abs((datetime.fromisoformat(first["when"]) - before).total_seconds())
        < 60
    )
    assert first["when"].endswith("+00:00")
    assert (second["who"], second["address"]) == ("local", "")


def _write_as(log: AuditLog, requester: Requester) -> None:
    REQUESTER.set(requester)
    log.write("label saved", case="Fälle", labels=3)


def test_an_exception_cannot_be_recorded(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    with pytest.raises(TypeError):
        log.write("left out", why=ValueError("/studies/SECRET"))  # type: ignore[arg-type]
    assert not list(log.read_lines())


def test_lines_are_appended_and_only_their_owner_reads_them(
    tmp_path: Path,
) -> None:
    file = tmp_path / "audit.jsonl"
    for number in range(3):
        AuditLog(file).write("label saved", labels=number)
    assert [line["labels"] for line in AuditLog(file).read_lines()] == [0, 1, 2]
    assert file.stat().st_mode & 0o777 == 0o600


def test_half_a_line_of_a_killed_process_spoils_no_other(
    tmp_path: Path,
) -> None:
    file = tmp_path / "audit.jsonl"
    log = AuditLog(file)
    log.write("first")
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:20])
    log.write("second")
    assert [line["action"] for line in log.read_lines()] == ["first", "second"]
    assert file.read_bytes().startswith(whole + whole[:20] + b"\n{")


def test_no_empty_line_comes_between_whole_ones(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    AuditLog(file).write("first")
    AuditLog(file).write("second")
    assert b"\n\n" not in file.read_bytes()
    assert file.read_bytes().endswith(b"\n")


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    threads = [
        threading.Thread(
            target=lambda: [
                log.write("label saved", case="x" * 500) for _ in "12345"
            ]
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == 40
    assert len(list(log.read_lines())) == 40


def test_a_line_is_on_disk_when_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    file = tmp_path / "audit.jsonl"

    def fsync(handle: int) -> None:
        synced.append(os.pread(handle, 10_000, 0))

    monkeypatch.setattr(os, "fsync", fsync)
    AuditLog(file).write("label saved")
    assert synced == [file.read_bytes()]
    assert json.loads(synced[0])["action"] == "label saved"


def test_a_full_disk_is_told_without_the_folder(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * 4096)
    log = AuditLog(small_disk / "audit.jsonl")
    with pytest.raises(
        OutputError, match="audit log cannot be written"
    ) as refused:
        _write_until_it_fails(log)
    assert str(small_disk) not in refused.value.message
    assert refused.value.source == str(small_disk / "audit.jsonl")
    assert all(line["action"] == "label saved" for line in log.read_lines())


def _write_until_it_fails(log: AuditLog) -> None:
    for _ in range(100_000):
        log.write("label saved", case="x" * 1000)


def test_no_log_has_no_lines(tmp_path: Path) -> None:
    assert not list(AuditLog(tmp_path / "audit.jsonl").read_lines())
