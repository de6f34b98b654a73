"""Saved label maps: on the scans' own grids, with label indices, whole or not at all.

The file is the label: what is on disk under its name counts, whatever else was lost. A label that
is replaced by a corrected one is kept beside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medseg._support.files import write_atomically
from medseg.bundle.hashes import hash_file
from medseg.errors import OutputError
from medseg.io import write_labels
from medseg.label_server.audit import Audit
from medseg.label_server.state import State
from medseg.volume import Array, Volume

FINAL = "final"
"""The tag of labels that a person has corrected and submitted; only these are learned from."""
ORIGINAL = "original"
"""The tag of labels as the model proposed them."""

ENDING = ".nii.gz"


@dataclass(frozen=True, slots=True)
class SavedLabel:
    """A label map on disk.

    Attributes:
        case: Whose.
        tag: ``final``, ``original`` or another.
        file: The label map.
        info: What the client said of it, and when it was saved.
    """

    case: str
    tag: str
    file: Path
    info: Mapping[str, Any]


class Labels:
    """The label maps of a state folder.

    Args:
        state: The state folder.
    """

    def __init__(self, state: State) -> None:
        self._root = state.labels
        self._audit = Audit(state.audit)

    def save(
        self, case: str, tag: str, labels: Array, like: Volume, info: Mapping[str, Any]
    ) -> SavedLabel:
        """Save a label map and enter it in the audit log; both are on disk when this returns.

        Args:
            case: Whose it is.
            tag: Under which tag; an earlier label of the same tag is kept beside.
            labels: Label indices ``(i, j, k)``.
            like: The scan.
            info: What to remember of it.

        Raises:
            OutputError: If it cannot be written; the earlier label is then still there.
        """
        file = self._file(case, tag)
        self._keep_former(case, tag)
        write_labels(file, labels, like)
        saved = {**info, "ts": int(datetime.now(UTC).timestamp()), "name": file.name}
        self._note(case, tag, saved)
        facts = {"client": info["client_id"]} if info.get("client_id") else {}
        self._audit.write("label saved", case=case, tag=tag, sha256=hash_file(file), **facts)
        return SavedLabel(case, tag, file, saved)

    def find(self, case: str, tag: str) -> SavedLabel | None:
        """Return a case's label, or ``None`` where it has none of this tag."""
        file = self._file(case, tag)
        return SavedLabel(case, tag, file, self._info(case, tag)) if file.is_file() else None

    def of(self, case: str) -> dict[str, SavedLabel]:
        """Return the labels of a case, by tag."""
        found = {tag: self.find(case, tag) for tag in self.tags()}
        return {tag: label for tag, label in found.items() if label is not None}

    def with_tag(self, tag: str) -> set[str]:
        """Name the cases that have a label of this tag."""
        files = (self._root / tag).glob(f"*{ENDING}")
        return {file.name.removesuffix(ENDING) for file in files if not file.name.startswith(".")}

    def tags(self) -> list[str]:
        """Name the tags there are."""
        if not self._root.is_dir():
            return []
        return sorted(folder.name for folder in self._root.iterdir() if folder.is_dir())

    def update_info(self, case: str, tag: str, info: Mapping[str, Any]) -> None:
        """Remember more of a label."""
        self._note(case, tag, {**self._info(case, tag), **info})

    def audit_what_a_kill_left_out(self) -> None:
        """Enter labels that were saved by a process killed before it could enter them."""
        entered = {
            (line.get("case"), line.get("tag"), line.get("sha256")) for line in self._audit.lines()
        }
        for tag in self.tags():
            for case in sorted(self.with_tag(tag)):
                digest = hash_file(self._file(case, tag))
                if (case, tag, digest) not in entered:
                    self._audit.write("label found at start", case=case, tag=tag, sha256=digest)

    def _keep_former(self, case: str, tag: str) -> None:
        file = self._file(case, tag)
        if not file.is_file():
            return
        kept = self._root.parent / "replaced" / tag / f"{case}-{hash_file(file)[:12]}{ENDING}"
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            if not kept.exists():
                os.link(file, kept)
        except OSError as error:
            raise OutputError(f"cannot keep the former label in {kept}: {error}") from error

    def _file(self, case: str, tag: str) -> Path:
        return self._root / tag / f"{case}{ENDING}"

    def _note(self, case: str, tag: str, info: Mapping[str, Any]) -> None:
        text = json.dumps(dict(info), indent=1, ensure_ascii=False, default=str)
        write_atomically(self._root / tag / f"{case}.json", text + "\n")

    def _info(self, case: str, tag: str) -> dict[str, Any]:
        try:
            found = json.loads((self._root / tag / f"{case}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # a kill came between label and note; the label is what counts
        return found if isinstance(found, dict) else {}
