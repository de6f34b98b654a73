"""Saved label maps: on the scans' own grids, with label indices, whole or not at all.

The file is the label: what is on disk under its name counts, whatever else was lost. A label that
is replaced by a corrected one is kept beside, and can be restored (``label_history.py``).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg._support.files import atomic_file, write_atomically
from medseg._support.platform.files import link_or_copy
from medseg.bundle.hashes import hash_file
from medseg.errors import OutputError
from medseg.io import write_labels
from medseg.label_server.audit import AuditLog, name_requester
from medseg.label_server.label_history import (
    FINAL,
    ORIGINAL,
    SUFFIX,
    LabelHistory,
)
from medseg.label_server.state import StateFolder
from medseg.names import normalize_name
from medseg.volume import Array, Volume

__all__ = ["FINAL", "ORIGINAL", "SOP_INSTANCE_UID", "Labels", "SavedLabel"]

SOP_INSTANCE_UID = "sop_instance_uid"
"""Where a label's info names the DICOM SEG that holds the same."""


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

    def __init__(self, state: StateFolder) -> None:
        self._root = state.labels
        self._audit = AuditLog(state.audit_log)
        self.history = LabelHistory(state)

    def save(
        self,
        case: str,
        tag: str,
        labels: Array,
        like: Volume,
        info: Mapping[str, Any],
        author: str = "",
    ) -> SavedLabel:
        """Save a label map and enter it in the audit log; both are on disk when this returns.

        Args:
            case: Whose it is.
            tag: Under which tag; an earlier label of the same tag is kept beside.
            labels: Label indices ``(i, j, k)``.
            like: The scan.
            info: What to remember of it.
            author: Who made it; whoever makes the request unless given.

        Raises:
            OutputError: If it cannot be written; the earlier label is then still there.
        """
        file = self._path(case, tag)
        self._keep_replaced(case, tag)
        write_labels(file, labels, like)
        return self._enter(case, tag, info, "label saved", author)

    def restore(self, case: str, number: int) -> SavedLabel:
        """Make an earlier label the current one of its tag again; the current one is kept beside.

        Args:
            case: Whose it is.
            number: The earlier label's, in the history.

        Raises:
            DatasetError: If the case has no such label.
            OutputError: If it cannot be written; the current label is then still there.
        """
        record = self.history.get(case, number)
        file = self._path(case, record.tag)
        self._keep_replaced(case, record.tag)
        with atomic_file(file) as temporary:
            shutil.copyfile(record.file, temporary)
        info = {**record.info, "restored": record.number}
        # A viewer would open what it was; it is stored anew.
        info.pop(SOP_INSTANCE_UID, None)
        # Not by the viewer that has sent it once, or the DICOM server.
        author = name_requester()
        return self._enter(case, record.tag, info, "label restored", author)

    def _enter(
        self,
        case: str,
        tag: str,
        info: Mapping[str, Any],
        action: str,
        author: str = "",
    ) -> SavedLabel:
        """Enter a label whose file is there: beside it, in the history and in the audit log."""
        file = self._path(case, tag)
        now = time.time()
        saved = {
            **info,
            "ts": int(now),
            "name": file.name,
        }
        self._write_info(case, tag, saved)
        digest = hash_file(file)
        client = info.get("client_id")
        author = author or name_requester(client)
        self.history.add(case, tag, digest, author, now, saved)
        facts = {
            "case": case,
            "tag": tag,
            "sha256": digest,
        }
        if client:
            facts["client"] = str(client)
        warnings = info.get("warnings")
        if warnings:
            facts["warnings"] = "; ".join(warnings)
        self._audit.write(action, **facts)
        return SavedLabel(case, tag, file, saved)

    def find(self, case: str, tag: str) -> SavedLabel | None:
        """Return a case's label, or ``None`` if it has none of this tag."""
        file = self._path(case, tag)
        if not file.is_file():
            return None
        return SavedLabel(case, tag, file, self._read_info(case, tag))

    def find_all(self, case: str) -> dict[str, SavedLabel]:
        """Return the labels of a case, by tag."""
        labels = {}
        for tag in self.list_tags():
            label = self.find(case, tag)
            if label is not None:
                labels[tag] = label
        return labels

    def list_cases(self, tag: str) -> set[str]:
        """Return the names of the cases that have a label of this tag."""
        cases = set()
        folder = self._root / tag
        for file in folder.glob(f"*{SUFFIX}"):
            if not file.name.startswith("."):  # a label that is being written
                cases.add(file.name.removesuffix(SUFFIX))
        return cases

    def list_tags(self) -> list[str]:
        """Return the tags that labels have."""
        if not self._root.is_dir():
            return []
        folders = [folder for folder in self._root.iterdir() if folder.is_dir()]
        return sorted(folder.name for folder in folders)

    def update_info(self, case: str, tag: str, info: Mapping[str, Any]) -> None:
        """Remember more of a label."""
        former = self._read_info(case, tag)
        self._write_info(case, tag, {**former, **info})

    def enter_unrecorded(self) -> None:
        """Enter labels that were saved by a process killed before it could enter them.

        Those of earlier releases are entered likewise, and all where the store was lost.
        """
        recorded = set()
        for line in self._audit.read_lines():
            entry = (line.get("case"), line.get("tag"), line.get("sha256"))
            recorded.add(entry)
        self.history.enter_replaced()
        for label in self._list_all():
            digest = hash_file(label.file)
            self.history.enter_current(
                label.case, label.tag, digest, label.info
            )
            if (label.case, label.tag, digest) not in recorded:
                self._audit.write(
                    "label found at start",
                    case=label.case,
                    tag=label.tag,
                    sha256=digest,
                )

    def _list_all(self) -> Iterator[SavedLabel]:
        for tag in self.list_tags():
            for case in sorted(self.list_cases(tag)):
                label = self.find(case, tag)
                if label is not None:
                    yield label

    def _keep_replaced(self, case: str, tag: str) -> None:
        file = self._path(case, tag)
        if not file.is_file():
            return
        digest = hash_file(file)
        kept = self.history.get_file(case, tag, digest)
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            if not kept.exists():
                link_or_copy(file, kept)
        except OSError as error:
            raise OutputError(
                "the label that this one replaces cannot be kept, so nothing was saved",
                source=kept,
                detail=str(error),
            ) from error

    def _path(self, case: str, tag: str) -> Path:
        return self.history.get_file(case, tag)

    def _info_path(self, case: str, tag: str) -> Path:
        return self._root / tag / f"{normalize_name(case)}.json"

    def _write_info(self, case: str, tag: str, info: Mapping[str, Any]) -> None:
        text = json.dumps(dict(info), indent=1, ensure_ascii=False, default=str)
        write_atomically(self._info_path(case, tag), text + "\n")

    def _read_info(self, case: str, tag: str) -> dict[str, Any]:
        file = self._info_path(case, tag)
        try:
            info = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # a kill came between label and note; the label is what counts
        return info if isinstance(info, dict) else {}
