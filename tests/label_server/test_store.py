"""The store of cases and labels: whole after a kill, restored after damage."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from medseg.errors import OutputError
from medseg.label_server import store as module
from medseg.label_server import store_schema
from medseg.label_server.state import StateFolder
from medseg.label_server.store import Store
from medseg.label_server.worklist import CaseState, Worklist


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


def fill(store: Store) -> None:
    """Enter more than one page of the file holds."""
    rows = [(f"case_{number:03d}", "x" * 100) for number in range(200)]
    with store.write() as connection:
        connection.executemany(
            "INSERT INTO cases (name, comment) VALUES (?, ?)", rows
        )


def comment(state: StateFolder, name: str = "a") -> str:
    return Worklist(Store(state)).get_record(name, "0001").comment


def test_an_error_undoes_what_a_change_has_done(state: StateFolder) -> None:
    store = Store(state)
    with contextlib.suppress(KeyError), store.write() as connection:
        connection.execute("INSERT INTO segmentations VALUES ('1.2')")
        raise KeyError
    with store.read() as connection:
        rows = connection.execute("SELECT * FROM segmentations").fetchall()
    assert rows == []


def test_a_store_that_another_process_holds_is_said_to_be_busy(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(state)
    store.copy()
    monkeypatch.setattr(module, "LONGEST_WAIT_SECONDS", 0.0)
    with (
        Store(state).write(),
        pytest.raises(OutputError, match="try again in a moment"),
        store.write(),
    ):
        pass


def test_the_store_is_its_owners_alone(state: StateFolder) -> None:
    former = os.umask(0)
    try:
        Store(state).copy()
    finally:
        os.umask(former)
    for file in (state.store, state.store_copy):
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["torn", "nonsense", "emptied", "altered"])
def test_a_damaged_store_is_restored_from_its_copy(
    state: StateFolder, damage: str
) -> None:
    store = Store(state)
    fill(store)
    Worklist(store).set_comment("a", "look again", "anna")
    store.copy()
    content = state.store.read_bytes()
    match damage:
        case "torn":
            half = content[: len(content) // 2]
            state.store.write_bytes(half)
        case "nonsense":
            state.store.write_bytes(b"nonsense" * 1000)
        case "emptied":
            with sqlite3.connect(state.store) as connection:
                connection.execute("DROP TABLE cases")
        case "altered":
            with sqlite3.connect(state.store) as connection:
                connection.execute("ALTER TABLE cases DROP COLUMN comment")
    with pytest.raises(
        OutputError, match="start medseg label again"
    ) as refused:
        comment(state)
    assert str(state.root) not in refused.value.message
    said = store.restore_if_damaged()
    assert "its copy was put in its place" in said
    assert comment(state) == "look again"
    assert list(state.root.glob("store.sqlite.damaged-*"))
    assert store.restore_if_damaged() == ""


@pytest.mark.parametrize("is_there", [True, False])
def test_a_store_without_content_is_restored_from_its_copy(
    state: StateFolder, is_there: bool
) -> None:
    assert Store(state).restore_if_damaged() == ""
    Worklist(Store(state)).set_comment("a", "look again", "anna")
    Store(state).copy()
    state.store.unlink()
    if is_there:
        state.store.touch()
    said = Store(state).restore_if_damaged()
    assert "its copy was put in its place" in said
    assert comment(state) == "look again"


def test_where_the_copy_is_damaged_too_the_store_is_made_anew(
    state: StateFolder,
) -> None:
    Store(state).copy()
    for file in (state.store, state.store_copy):
        file.write_bytes(b"nonsense" * 1000)
    assert "anew from the files" in Store(state).restore_if_damaged()
    assert comment(state) == ""


def test_a_copy_is_never_made_of_a_damaged_store(state: StateFolder) -> None:
    store = Store(state)
    fill(store)
    store.copy()
    whole = state.store_copy.read_bytes()
    content = bytearray(state.store.read_bytes())
    content[8192:12288] = bytes(4096)
    state.store.write_bytes(content)
    with contextlib.suppress(OutputError):
        store.copy()
    assert state.store_copy.read_bytes() == whole
    assert not list(state.root.glob(".part-*"))


def test_work_is_copied_as_it_goes_on(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medseg.label_server.store.COPIED_EVERY_SECONDS", 0)
    Worklist(Store(state)).set_comment("a", "look again", "anna")
    state.store.unlink()
    state.store_copy.rename(state.store)
    assert comment(state) == "look again"


def test_a_store_of_a_newer_release_is_left_as_it_is(
    state: StateFolder,
) -> None:
    Store(state).copy()
    with sqlite3.connect(state.store) as connection:
        step = len(store_schema.MIGRATIONS) + 1
        connection.execute(f"PRAGMA user_version = {step}")
    content = state.store.read_bytes()
    store = Store(state)
    assert store.restore_if_damaged() == ""
    with pytest.raises(OutputError, match="newer medseg"):
        comment(state)
    assert state.store.read_bytes() == content


def test_a_later_step_is_taken_from_the_one_before(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Worklist(Store(state)).set_comment("a", "look again", "anna")
    steps = (*store_schema.MIGRATIONS, "CREATE TABLE later (name TEXT)")
    monkeypatch.setattr("medseg.label_server.store.MIGRATIONS", steps)
    store = Store(state)
    assert comment(state) == "look again"
    with store.read() as connection:
        assert connection.execute("SELECT * FROM later").fetchall() == []
    assert store.restore_if_damaged() == ""


def test_a_store_that_cannot_be_opened_is_no_damaged_one(
    state: StateFolder,
) -> None:
    state.store.mkdir(parents=True)
    with pytest.raises(OutputError, match="permissions"):
        Store(state).restore_if_damaged()
    with pytest.raises(OutputError, match="permissions"):
        comment(state)


KILLED = """
import sys
from pathlib import Path
from medseg.label_server.state import StateFolder
from medseg.label_server.store import Store

store = Store(StateFolder(Path(sys.argv[1])))
with store.write() as connection:
    for number in range(20000):
        connection.execute("INSERT INTO segmentations VALUES (?)", (str(number),))
print("whole", flush=True)
with store.write() as connection:
    # More than the cache holds, so that some is in the file already.
    connection.execute("PRAGMA cache_size = 10")
    for number in range(20000, 60000):
        connection.execute("INSERT INTO segmentations VALUES (?)", (str(number),))
    print("half", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow  # starts a process
def test_a_kill_in_the_middle_of_a_change_undoes_it(
    state: StateFolder,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(state.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "whole\n"
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    store = Store(state)
    assert store.restore_if_damaged() == ""
    with store.read() as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM segmentations"
        ).fetchone()
    assert count == 20000
    assert Worklist(store).get_record("a", "0001").state == CaseState.NEW
