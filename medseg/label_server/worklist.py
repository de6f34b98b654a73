"""``Worklist``: how far the work on each case is, and who has it.

A case is ``new`` until the bundle has segmented it, then ``proposed``; ``corrected`` once somebody
has submitted a label, and ``reviewed`` or ``rejected`` once a second person has judged that label.
A rejected case is to be corrected again.
"""

from __future__ import annotations

import enum
import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medseg.errors import MedsegError
from medseg.label_server.store import Store
from medseg.names import normalize_name

ASSIGNED_SECONDS = 2 * 3600.0
"""How long a case stays with whom it was offered to; each request for it begins that anew."""
LONGEST_COMMENT = 2000


class CaseState(enum.StrEnum):
    """How far the work on a case is."""

    NEW = "new"
    PROPOSED = "proposed"
    CORRECTED = "corrected"
    REVIEWED = "reviewed"
    REJECTED = "rejected"


class Reading(enum.IntEnum):
    """What somebody has a case for."""

    FIRST = 1
    """To correct it."""
    SECOND = 2
    """To judge the correction of somebody else."""


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """What is known of a case.

    Attributes:
        name: The case.
        state: How far the work on it is.
        quality: How good the version's result probably is, as ``summarise_quality`` says it;
            ``None`` before that is known.
        assignee: Who has it to correct; empty if nobody does.
        second_reader: Who has it, or had it last, to judge the correction; empty if nobody.
        comment: What people wrote of it.
        changed: When state or comment changed last, in seconds since 1970; 0 if never.
        changed_by: Who did.
    """

    name: str
    state: CaseState = CaseState.NEW
    quality: Mapping[str, Any] | None = None
    assignee: str = ""
    second_reader: str = ""
    comment: str = ""
    changed: float = 0.0
    changed_by: str = ""


class Worklist:
    """The work on the cases of a store.

    Args:
        store: The store.
        clock: Seconds since 1970.
    """

    def __init__(
        self, store: Store, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._clock = clock

    def get_record(self, name: str, version: str) -> CaseRecord:
        """Return what is known of a case, with the quality of a version's result."""
        (record,) = self.list_records([name], version)
        return record

    def list_records(
        self, names: Sequence[str], version: str
    ) -> list[CaseRecord]:
        """Return what is known of cases, in the order of their names as given.

        Args:
            names: Of the cases; one of which nothing is known is ``new``.
            version: The name of the version whose qualities are wanted.
        """
        with self._store.read() as connection:
            # One moment for all: another request may change a case between two questions.
            connection.execute("BEGIN")
            rows = connection.execute(
                "SELECT name, state, comment, changed, changed_by FROM cases"
            ).fetchall()
            known = {row[0]: row[1:] for row in rows}
            held = self._read_assignments(connection)
            qualities = read_qualities(connection, version)
        records = []
        for name in names:
            key = normalize_name(name)
            state, comment, changed, changed_by = known.get(
                key, (CaseState.NEW, "", 0.0, "")
            )
            record = CaseRecord(
                name,
                CaseState(state),
                qualities.get(key),
                held.get((key, Reading.FIRST), ""),
                held.get((key, Reading.SECOND), ""),
                comment,
                changed,
                changed_by,
            )
            records.append(record)
        return records

    def list_names(self, state: CaseState) -> set[str]:
        """Return the names of the cases in a state; of ``new`` ones, those that were it before."""
        with self._store.read() as connection:
            rows = connection.execute(
                "SELECT name FROM cases WHERE state = ?", (state.value,)
            )
            return {name for (name,) in rows}

    def list_held(self, person: str, reading: Reading) -> set[str]:
        """Return the names of the cases that somebody has now."""
        with self._store.read() as connection:
            held = self._read_assignments(connection)
        return {
            case
            for (case, kind), holder in held.items()
            if kind == reading and holder == person
        }

    def set_state(self, name: str, state: CaseState, person: str) -> None:
        """Note how far the work on a case is."""
        with self._store.write() as connection:
            enter_state(connection, name, state, person, self._clock())

    def set_comment(self, name: str, comment: str, person: str) -> None:
        """Keep what somebody wrote of a case, in the place of what was there.

        Raises:
            MedsegError: If it is too long.
        """
        if len(comment) > LONGEST_COMMENT:
            raise MedsegError(
                f"a comment has at most {LONGEST_COMMENT} characters"
            )
        with self._store.write() as connection:
            connection.execute(
                "INSERT INTO cases (name, comment, changed, changed_by) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET comment = excluded.comment, "
                "changed = excluded.changed, changed_by = excluded.changed_by",
                (normalize_name(name), comment, self._clock(), person),
            )

    def assign(
        self,
        name: str,
        person: str,
        reading: Reading = Reading.FIRST,
        seconds: float | None = None,
    ) -> None:
        """Give a case to somebody, whoever has it now.

        Args:
            name: The case.
            person: Who; nobody if empty.
            reading: What for.
            seconds: For how long; for good unless given.
        """
        with self._store.write() as connection:
            connection.execute(
                "DELETE FROM assignments WHERE case_name = ? AND reading = ?",
                (normalize_name(name), reading),
            )
            if person:
                self._enter(connection, name, person, reading, seconds)

    def claim(
        self,
        names: Sequence[str],
        person: str,
        reading: Reading = Reading.FIRST,
        seconds: float = ASSIGNED_SECONDS,
    ) -> str | None:
        """Give somebody the first case that nobody else has, in one step.

        What they have already comes before what is free.

        Args:
            names: The cases, the one to be taken first at first.
            person: Who.
            reading: What for. A second reader gets no case whose label is their own.
            seconds: For how long.

        Returns:
            The case; ``None`` if others have them all.
        """
        with self._store.write() as connection:
            held = self._read_assignments(connection)
            mine = []
            free = []
            for name in names:
                holder = held.get((normalize_name(name), reading))
                if holder == person:
                    mine.append(name)
                elif holder is None:
                    free.append(name)
            for name in mine + free:
                key = normalize_name(name)
                if not _is_own(connection, key, person, reading):
                    self._prolong(connection, key, person, reading, seconds)
                    return name
        return None

    def prolong(self, name: str, person: str) -> None:
        """Let somebody who works on a case keep it; nothing happens if somebody else has it."""
        key = normalize_name(name)
        with self._store.write() as connection:
            now = self._clock()
            connection.execute(
                "UPDATE assignments SET expires = ? WHERE case_name = ? AND person = ? "
                "AND expires > ?",
                (now + ASSIGNED_SECONDS, key, person, now),
            )

    def _prolong(
        self,
        connection: sqlite3.Connection,
        key: str,
        person: str,
        reading: Reading,
        seconds: float,
    ) -> None:
        has_for_good = connection.execute(
            "SELECT 1 FROM assignments WHERE case_name = ? AND reading = ? AND person = ? "
            "AND expires IS NULL",
            (key, reading, person),
        ).fetchone()
        if not has_for_good:
            self._enter(connection, key, person, reading, seconds)

    def _enter(
        self,
        connection: sqlite3.Connection,
        name: str,
        person: str,
        reading: Reading,
        seconds: float | None,
    ) -> None:
        expires = None if seconds is None else self._clock() + seconds
        connection.execute(
            "INSERT OR REPLACE INTO assignments VALUES (?, ?, ?, ?)",
            (normalize_name(name), reading, person, expires),
        )

    def _read_assignments(
        self, connection: sqlite3.Connection
    ) -> dict[tuple[str, int], str]:
        """Return (case, reading) → who has it now."""
        rows = connection.execute(
            "SELECT case_name, reading, person FROM assignments "
            "WHERE expires IS NULL OR expires > ?",
            (self._clock(),),
        )
        return {(case, reading): person for case, reading, person in rows}


def enter_state(
    connection: sqlite3.Connection,
    name: str,
    state: CaseState,
    person: str,
    moment: float,
) -> None:
    """Note how far the work on a case is, within a transaction.

    A correction ends the first reading, a judgement keeps for good who made it. A proposal changes
    nothing of a case that was corrected already.
    """
    key = normalize_name(name)
    if state is CaseState.PROPOSED:
        connection.execute(
            "INSERT INTO cases (name, state, changed, changed_by) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET state = excluded.state WHERE state = 'new'",
            (key, state.value, moment, person),
        )
        return
    if state is CaseState.CORRECTED:
        # Who was asked to judge, and has not done so yet, judges this correction, too.
        connection.execute(
            "DELETE FROM assignments WHERE case_name = ? AND (reading = 1 OR person = ? "
            "OR expires IS NOT NULL OR EXISTS (SELECT 1 FROM cases "
            "WHERE name = case_name AND state IN ('reviewed', 'rejected')))",
            (key, person),
        )
    connection.execute(
        "INSERT INTO cases (name, state, changed, changed_by) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET state = excluded.state, "
        "changed = excluded.changed, changed_by = excluded.changed_by",
        (key, state.value, moment, person),
    )
    if state in (CaseState.REVIEWED, CaseState.REJECTED):
        connection.execute(
            "INSERT OR REPLACE INTO assignments VALUES (?, ?, ?, NULL)",
            (key, Reading.SECOND, person),
        )


def read_qualities(
    connection: sqlite3.Connection, version: str
) -> dict[str, dict[str, Any]]:
    """Return case → quality of a version's results."""
    rows = connection.execute(
        "SELECT case_name, quality FROM qualities WHERE version = ?",
        (version,),
    )
    return {case: json.loads(quality) for case, quality in rows}


def _is_own(
    connection: sqlite3.Connection, key: str, person: str, reading: Reading
) -> bool:
    """Tell whether a second reader would judge what they submitted themselves."""
    if reading is Reading.FIRST:
        return False
    row = connection.execute(
        "SELECT author FROM labels WHERE case_name = ? AND tag = 'final' "
        "ORDER BY number DESC LIMIT 1",
        (key,),
    ).fetchone()
    return row is not None and row[0] == person
