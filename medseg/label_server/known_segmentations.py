"""``KnownSegmentations``: which DICOM SEG of the PACS are known, and who stored the others."""

from __future__ import annotations

from collections.abc import Iterable

from medseg.label_server.state import StateFolder
from medseg.label_server.store import Store


class KnownSegmentations:
    """Which segmentations of the server are known already, and who stored those of others.

    Known are ours, and those that were read back.

    Args:
        state: The state folder.
    """

    def __init__(self, state: StateFolder) -> None:
        self._store = Store(state)

    def read(self) -> frozenset[str]:
        """Return their SOP instance UIDs."""
        with self._store.read() as connection:
            rows = connection.execute("SELECT uid FROM segmentations")
            return frozenset(uid for (uid,) in rows)

    def add(self, uid: str) -> None:
        """Add a SOP instance UID."""
        with self._store.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO segmentations VALUES (?)", (uid,)
            )

    def find_author(self, uid: str) -> str:
        """Return who stored a segmentation through this server; empty if nobody did."""
        with self._store.read() as connection:
            row = connection.execute(
                "SELECT person FROM storers WHERE uid = ?", (uid,)
            ).fetchone()
        return row[0] if row else ""

    def note_author(self, uids: Iterable[str], person: str) -> None:
        """Note who stored instances through this server; of several who did, the first counts."""
        rows = [(uid, person) for uid in uids]
        with self._store.write() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO storers VALUES (?, ?)", rows
            )
