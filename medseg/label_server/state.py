"""The state folder: everything ``medseg label`` writes. The scans' own folder is never touched."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from medseg._support.files import PART
from medseg._support.folders import resolve_path
from medseg._support.platform.locks import LockedError, lock_folder
from medseg.errors import OutputError
from medseg.names import is_device_name, is_safe_name, normalize_name


class StateFolder:
    """The paths of a state folder.

    Args:
        root: The folder.

    Attributes:
        served: The file that names the version in use.
        versions: A trained bundle per version.
        labels: Saved label maps, by tag.
        replaced: Label maps that a later one took the place of, by tag.
        added: Uploaded images; each is a case.
        images: NIfTI copies for viewers, and images that were uploaded to earlier releases.
        series: Series fetched from a DICOMweb server.
        pictures: A small picture of each case, for the work list.
        scores: Expected Dice of each case by version, as earlier releases kept it.
        trainings: What each version was trained on.
        sessions: MONAI Label's sessions.
        uploads: Files in transit; emptied when a server starts.
        store: What is known of cases and labels.
        store_copy: A copy of it, to restore it from.
        cases: The scans as earlier releases listed them.
        split: Which cases are held out.
        progress: How far the running training is.
        segmentations: Segmentations of the DICOM server as earlier releases listed them.
        audit_log: Who changed what and when.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.served = self.root / "served"
        self.versions = self.root / "versions"
        self.labels = self.root / "labels"
        self.replaced = self.root / "replaced"
        self.added = self.root / "added"
        self.images = self.root / "images"
        self.series = self.root / "series"
        self.pictures = self.root / "pictures"
        self.scores = self.root / "scores"
        self.trainings = self.root / "trainings"
        self.sessions = self.root / "sessions"
        self.uploads = self.root / "uploads"
        self.store = self.root / "store.sqlite"
        self.store_copy = self.root / "store-copy.sqlite"
        self.cases = self.root / "cases.json"
        self.split = self.root / "split.json"
        self.progress = self.root / "training.json"
        self.segmentations = self.root / "segmentations.json"
        self.audit_log = self.root / "audit.jsonl"

    def require_apart_from(self, studies: Path) -> None:
        """Make sure that neither the state nor the scans lie within the other.

        Raises:
            OutputError: If one does.
        """
        state = resolve_path(self.root)
        scans = resolve_path(studies)
        if state == scans or scans in state.parents or state in scans.parents:
            raise OutputError(
                "the state folder and the scans must lie apart, so that no original is touched; "
                "give another --state",
                source=self.root,
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other servers from this state, and remove what a killed one left unfinished.

        The lock of a process that was killed is free.

        Raises:
            OutputError: If another server uses it, or it cannot be written.
        """
        with self._lock():
            self._remove_leftovers()
            yield

    def _lock(self) -> contextlib.ExitStack:
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            return lock_folder(self.root)
        except LockedError as error:
            raise OutputError(
                "another medseg label uses this state folder; stop it, or give another --state",
                source=self.root,
            ) from error
        except OSError as error:
            raise OutputError(
                "the state folder cannot be written; give another --state",
                source=self.root,
                detail=error.strerror,
            ) from error

    def _remove_leftovers(self) -> None:
        folders = [
            self.root,
            self.versions,
            self.series,
            self.images,
            self.added,
        ]
        folders.extend(self.labels.glob("*"))
        for folder in folders:
            for unfinished in folder.glob(f"{PART}*"):
                _remove(unfinished)
        for upload in self.uploads.glob("*"):
            _remove(upload)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_plain_name(name: object) -> bool:
    """Tell whether a case's, tag's or session's name cannot lead to another folder, or a device."""
    if not isinstance(name, str) or ".." in name or is_device_name(name):
        return False
    return is_safe_name(normalize_name(name))
