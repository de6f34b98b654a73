"""``Store``: what is known of cases and labels, in one SQLite file of the state folder.

Images and label maps stay files, and what a file says counts: the store can be made again from
them. It holds what has no file of its own, and what several requests or processes change at once.
Each change is a transaction, which a process killed at any moment leaves done or undone.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from medseg._support.files import PART
from medseg._support.platform.files import open_binary, rename, sync
from medseg.errors import OutputError
from medseg.label_server.former_state import take_over
from medseg.label_server.state import StateFolder
from medseg.label_server.store_schema import MIGRATIONS

LONGEST_WAIT_SECONDS = 30.0
"""How long a change waits for another one."""
COPIED_EVERY_SECONDS = 60.0
"""How much of people's work, at most, is only in the store and not in its copy."""

_DAMAGED = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
)
"""SQLite's codes for no such file, for a torn one, and for tables that are not there."""
_DAMAGE = "the store of cases and labels is damaged; start medseg label again, which restores it"
_BUSY = (
    "another process holds the store of cases and labels; try again in a moment"
)
_UNUSABLE = "the store of cases and labels cannot be written; free space or mend its permissions"


class Store:
    """The store of a state folder; may be used by several threads and processes.

    Args:
        state: The state folder; the store is made when it is first used.
    """

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._file = state.store
        self._is_ready = False
        self._copied = time.monotonic()

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Give a connection to read with.

        Raises:
            OutputError: If the store is damaged, or cannot be read.
        """
        with self._telling_errors(), self._connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that alone changes the store; an error undoes what it has changed.

        Raises:
            OutputError: If the store is damaged, or cannot be written.
        """
        with self._telling_errors(), self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
        if time.monotonic() - self._copied > COPIED_EVERY_SECONDS:
            # What was asked for is done, and lies in the store; a later change copies again.
            with contextlib.suppress(OutputError):
                self.copy()

    def restore_if_damaged(self) -> str:
        """Put a copy in the place of a damaged store; called while no other process uses it.

        The damaged file is kept beside it.

        Returns:
            What happened, for people; empty if the store is sound or there is none.
        """
        with self._telling_errors():
            return self._restore() if self._is_damaged() else ""

    def _is_damaged(self) -> bool:
        if self._file.exists() and self._file.stat().st_size:
            return not _is_sound(self._file)
        # A disk was full, or who restored it was killed: of a new store there is no copy.
        return self._state.store_copy.is_file()

    def _restore(self) -> str:
        self._is_ready = False
        moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        for suffix in ("", "-journal"):
            file = self._file.with_name(self._file.name + suffix)
            kept = file.with_name(f"{file.name}.damaged-{moment}")
            if file.exists():
                rename(file, kept)
        copy = self._state.store_copy
        if copy.is_file() and _is_sound(copy):
            _copy_store(copy, self._file)
            return (
                "the store of cases and labels was damaged; its copy was put in its place, and "
                "what the files say beyond it is entered anew"
            )
        return (
            "the store of cases and labels was damaged, and so was its copy; it is made anew "
            "from the files, without comments, reviews and assignments"
        )

    def copy(self) -> None:
        """Keep a copy to restore from, unless the store is damaged."""
        self._copied = time.monotonic()
        with self._telling_errors(), self._connect():
            _copy_store(self._file, self._state.store_copy)

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        if not self._file.exists():
            self._is_ready = False
            self._make_private_file()
        with contextlib.closing(_open(self._file)) as connection:
            if not self._is_ready:
                self._migrate(connection)
                self._is_ready = True
            yield connection

    def _make_private_file(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT
        os.close(open_binary(self._file, flags, 0o600))

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Take the steps that the store has not behind it yet, all or none."""
        if _read_step(connection) == len(MIGRATIONS):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have taken them while this one waited.
            step = _read_step(connection)
            if step > len(MIGRATIONS):
                raise OutputError(
                    "a newer medseg has written the state folder; update medseg, or give another "
                    "--state",
                    source=self._state.root,
                )
            _take_steps(connection, step)
            if step == 0:
                take_over(connection, self._state)
            connection.commit()
        except BaseException:
            connection.rollback()
            raise

    @contextlib.contextmanager
    def _telling_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OutputError(
                _explain(error), source=self._file, detail=str(error)
            ) from error
        except OSError as error:
            raise OutputError(
                _UNUSABLE, source=self._file, detail=error.strerror
            ) from error


def _open(file: Path) -> sqlite3.Connection:
    # Transactions begin where they are meant to: Python would begin them at the first change.
    connection = sqlite3.connect(
        file, timeout=LONGEST_WAIT_SECONDS, isolation_level=None
    )
    # The journal is SQLite's default, not the write-ahead log, which network drives cannot have.
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _read_step(connection: sqlite3.Connection) -> int:
    (step,) = connection.execute("PRAGMA user_version").fetchone()
    return int(step)


def _take_steps(connection: sqlite3.Connection, step: int) -> None:
    for number, script in enumerate(MIGRATIONS[step:], start=step + 1):
        # Not `executescript`, which would commit what is open.
        for statement in script.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")


def _is_sound(file: Path) -> bool:
    """Tell whether a store can be read through, and has the tables that its step says."""
    try:
        with contextlib.closing(_open(file)) as connection:
            verdict = connection.execute("PRAGMA quick_check").fetchone()
            step = _read_step(connection)
            tables = _list_tables(connection)
    except sqlite3.DatabaseError as error:
        if _tells_of_damage(error):
            return False
        raise
    if step > len(MIGRATIONS):
        return True  # a newer release's, which is not for this one to judge
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for script in MIGRATIONS[:step]:
            connection.executescript(script)
        return verdict == ("ok",) and _list_tables(connection) <= tables


def _explain(error: sqlite3.Error) -> str:
    if _tells_of_damage(error):
        return _DAMAGE
    return _BUSY if _get_code(error) == sqlite3.SQLITE_BUSY else _UNUSABLE


def _tells_of_damage(error: sqlite3.Error) -> bool:
    return _get_code(error) in _DAMAGED


def _get_code(error: sqlite3.Error) -> int:
    # An error may say more in the bits above the first eight.
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF


def _list_tables(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(
        connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'table'"
        )
    )


def _copy_store(file: Path, copy: Path) -> None:
    """Copy a store, whole or not at all, unless what was copied is damaged."""
    handle, name = tempfile.mkstemp(dir=copy.parent, prefix=PART)
    os.close(handle)
    temporary = Path(name)
    try:
        with (
            contextlib.closing(_open(file)) as source,
            contextlib.closing(_open(temporary)) as target,
        ):
            source.backup(target)
        if _is_sound(temporary):
            sync(temporary)
            rename(temporary, copy)
            sync(copy.parent)
    finally:
        temporary.unlink(missing_ok=True)
