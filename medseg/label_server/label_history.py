"""``LabelHistory``: every label map that was ever saved of a case; a mistake loses none.

The files lie in ``labels/`` and ``replaced/``; the store says who saved which of them, and when.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.bundle.hashes import hash_file
from medseg.errors import DatasetError
from medseg.label_server.state import StateFolder
from medseg.label_server.store import Store
from medseg.label_server.worklist import CaseState, enter_state
from medseg.names import normalize_name

FINAL = "final"
"""The tag of labels that a person has corrected and submitted; only these are trained on."""
ORIGINAL = "original"
"""The tag of labels as the model proposed them."""

SUFFIX = ".nii.gz"
_DIGITS = 12
_REPLACED = re.compile(rf"(.+)-([0-9a-f]{{{_DIGITS}}}){re.escape(SUFFIX)}")


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """One label map that was saved.

    Attributes:
        number: Tells it from every other label; a later one has a higher number.
        case: Whose it is.
        tag: ``final``, ``original`` or another.
        sha256: Of its file.
        author: Who saved it.
        saved: When, in seconds since 1970.
        info: What the viewer said of it.
        file: The label map.
        is_current: Whether it is the one that counts, and no later one took its place.
    """

    number: int
    case: str
    tag: str
    sha256: str
    author: str
    saved: float
    info: Mapping[str, Any]
    file: Path
    is_current: bool


class LabelHistory:
    """The labels that were saved.

    Args:
        state: The state folder.
    """

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._store = Store(state)

    def list_records(self, case: str, tag: str = FINAL) -> list[LabelRecord]:
        """Return the labels of a case and tag whose files are there, the newest first."""
        name = normalize_name(case)
        with self._store.read() as connection:
            rows = connection.execute(
                "SELECT number, sha256, author, saved, info FROM labels "
                "WHERE case_name = ? AND tag = ? ORDER BY saved DESC, number DESC",
                (name, tag),
            ).fetchall()
        records = []
        for row in rows:
            is_current = row is rows[0]
            digest = "" if is_current else row[1]
            file = self.get_file(name, tag, digest)
            if file.is_file():
                number, sha256, author, saved, info = row
                record = LabelRecord(
                    number=number,
                    case=name,
                    tag=tag,
                    sha256=sha256,
                    author=author,
                    saved=saved,
                    info=json.loads(info),
                    file=file,
                    is_current=is_current,
                )
                records.append(record)
        return records

    def get(self, case: str, number: int) -> LabelRecord:
        """Return one label of a case.

        Raises:
            DatasetError: If the case has no such label.
        """
        with self._store.read() as connection:
            row = connection.execute(
                "SELECT tag FROM labels WHERE number = ?", (number,)
            ).fetchone()
        tag = FINAL if row is None else row[0]
        for record in self.list_records(case, tag):
            if record.number == number:
                return record
        raise DatasetError("the case has no such label", detail=case[:100])

    def get_file(self, case: str, tag: str, digest: str = "") -> Path:
        """Return where a label lies: the current one, or by its hash one that was replaced."""
        name = normalize_name(case)
        if not digest:
            return self._state.labels / tag / f"{name}{SUFFIX}"
        file = f"{name}-{digest[:_DIGITS]}{SUFFIX}"
        return self._state.replaced / tag / file

    def add(
        self,
        case: str,
        tag: str,
        digest: str,
        author: str,
        saved: float,
        info: Mapping[str, Any],
    ) -> None:
        """Enter a label that was saved, and what it means for the work on the case."""
        name = normalize_name(case)
        text = json.dumps(dict(info), ensure_ascii=False, default=str)
        state = CaseState.CORRECTED if tag == FINAL else CaseState.PROPOSED
        with self._store.write() as connection:
            connection.execute(
                "INSERT INTO labels (case_name, tag, sha256, author, saved, info) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (name, tag, digest, author, saved, text),
            )
            enter_state(connection, name, state, author, saved)

    def enter_current(
        self, case: str, tag: str, digest: str, info: Mapping[str, Any]
    ) -> None:
        """Enter the current label of a case, unless it is entered as such."""
        with self._store.read() as connection:
            row = connection.execute(
                "SELECT sha256, saved FROM labels WHERE case_name = ? AND tag = ? "
                "ORDER BY saved DESC, number DESC LIMIT 1",
                (normalize_name(case), tag),
            ).fetchone()
        known, last = row or ("", 0.0)
        if known == digest:
            return
        file = self.get_file(case, tag)
        author = str(info.get("client_id") or "")
        # Whatever time the file has, it is the last one.
        saved = max(file.stat().st_mtime, last)
        self.add(case, tag, digest, author, saved, info)

    def enter_replaced(self) -> None:
        """Enter labels that were replaced and of which the store knows nothing."""
        with self._store.read() as connection:
            known = set(
                connection.execute("SELECT case_name, tag, sha256 FROM labels")
            )
        entered = {(case, tag, digest[:_DIGITS]) for case, tag, digest in known}
        for file in sorted(self._state.replaced.glob(f"*/*{SUFFIX}")):
            match = _REPLACED.fullmatch(file.name)
            if match is None:
                continue
            case, digits = match.groups()
            tag = file.parent.name
            if (case, tag, digits) not in entered:
                moment = file.stat().st_mtime
                self.add(case, tag, hash_file(file), "", moment, {})
