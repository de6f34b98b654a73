"""State folders of earlier releases, which kept lists of cases and scores as JSON files.

They are read once, when the store is made, and stay as they are.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.label_server.state import StateFolder
from medseg.names import normalize_name


def take_over(connection: sqlite3.Connection, state: StateFolder) -> None:
    """Enter what an earlier release has written into a new store.

    Torn lists of scans and scores are passed over: scans are checked and scored again.

    Args:
        connection: To the store, in a transaction.
        state: The state folder.

    Raises:
        MedsegError: If the list of known segmentations is damaged; without it, labels that were
            stored long ago would be taken for new corrections.
    """
    for name, entry in _read_object(state.cases).items():
        _enter_scan(connection, name, entry)
    for file in sorted(state.scores.glob("*.json")):
        for case, quality in _read_object(file).items():
            connection.execute(
                "INSERT INTO qualities VALUES (?, ?, ?)",
                (normalize_name(case), file.stem, json.dumps(quality)),
            )
    connection.executemany(
        "INSERT OR IGNORE INTO segmentations VALUES (?)",
        [(uid,) for uid in _read_segmentations(state.segmentations)],
    )


def _enter_scan(
    connection: sqlite3.Connection, name: str, entry: object
) -> None:
    if not isinstance(entry, Mapping):
        return
    parts = entry.get("parts")
    stamp = entry.get("print")
    if not isinstance(parts, list) or not isinstance(stamp, str):
        return
    connection.execute(
        "INSERT INTO scans VALUES (?, ?, ?, ?, ?)",
        (
            name,
            json.dumps(parts),
            str(entry.get("volume", "")),
            stamp,
            json.dumps(entry.get("warnings", [])),
        ),
    )


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_segmentations(file: Path) -> list[str]:
    try:
        uids = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        uids = None
    if isinstance(uids, list) and all(isinstance(uid, str) for uid in uids):
        return uids
    raise MedsegError(
        "the list of known segmentations is damaged; restore or remove it",
        source=file,
    )
