"""The state folder: everything ``medseg label`` writes. The scans' own folder is never touched."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from medseg._support.files import PART
from medseg._support.folders import resolve_path
from medseg.errors import OutputError

PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
"""Names of cases, tags and sessions: they can lead to no other folder."""


class State:
    """The paths of a state folder.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.served = self.root / "served"
        self.versions = self.root / "versions"
        self.labels = self.root / "labels"
        self.images = self.root / "images"
        self.series = self.root / "series"
        self.scores = self.root / "scores"
        self.trainings = self.root / "trainings"
        self.sessions = self.root / "sessions"
        self.uploads = self.root / "uploads"
        self.cases = self.root / "cases.json"
        self.split = self.root / "split.json"
        self.progress = self.root / "training.json"
        self.audit = self.root / "audit.jsonl"

    def refuse_within(self, studies: Path) -> None:
        """Make sure that the state is not among the scans.

        Raises:
            OutputError: If it is, or the scans are in the state.
        """
        ours, theirs = resolve_path(self.root), resolve_path(studies)
        if ours == theirs or theirs in ours.parents or ours in theirs.parents:
            raise OutputError(
                f"the state folder {self.root} and the scans in {studies} must lie apart, so that "
                "no original is touched; give another --state"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other servers from this state; a killed one frees it. Clear what one left half.

        Raises:
            OutputError: If another server uses it, or it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(f"cannot write {self.root}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._clear()
            yield
        except BlockingIOError as error:
            raise OutputError(
                f"another medseg label uses {self.root}; stop it, or give another --state"
            ) from error
        finally:
            os.close(handle)

    def _clear(self) -> None:
        folders = (self.root, self.versions, self.series, self.images, *self.labels.glob("*"))
        halves = (half for folder in folders for half in folder.glob(f"{PART}*"))
        for leftover in (*halves, *self.uploads.glob("*")):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def is_plain(name: object) -> bool:
    """Tell whether something is a name that can lead to no other folder."""
    return isinstance(name, str) and PLAIN_NAME.fullmatch(name) is not None and ".." not in name
