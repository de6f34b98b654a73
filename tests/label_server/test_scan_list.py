"""The list of scans, as several threads and processes share it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medseg.datasets.cases import Scan
from medseg.errors import OutputError
from medseg.label_server.scan_list import ScanList
from medseg.label_server.state import StateFolder
from medseg.label_server.store import Store

INTRUDER = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
store.execute("BEGIN IMMEDIATE")
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(StateFolder(tmp_path / "state"))


def make_scan(folder: Path, name: str) -> Scan:
    file = folder / f"{name}.nii.gz"
    file.write_bytes(b"")
    return Scan(name, ((file,),))


def test_a_list_that_another_process_has_changed_is_read_again(
    store: Store, tmp_path: Path
) -> None:
    scans = [make_scan(tmp_path, name) for name in "ab"]
    mine = ScanList(store)
    with pytest.raises(OutputError):
        mine.list_names()
    others = ScanList(store)
    others.set_found(scans[:1])
    assert mine.list_names() == ["a"]
    assert mine.get("a") is mine.get("a")
    others.set_found(scans)
    assert mine.list_names() == ["a", "b"]


def test_whoever_reads_the_list_leaves_a_change_under_way_alone(
    store: Store, tmp_path: Path
) -> None:
    scans = ScanList(store)
    scans.set_found([make_scan(tmp_path, "a")])
    file = StateFolder(tmp_path / "state").store
    with store.write():
        assert scans.list_names() == ["a"]
        intruder = subprocess.run(
            [sys.executable, "-c", INTRUDER, str(file)],
            capture_output=True,
            text=True,
        )
    assert "database is locked" in intruder.stderr
