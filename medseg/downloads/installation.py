"""Put an open data set into a folder: fetched, verified, unpacked; whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from medseg._support.files import PART, atomic_folder, refuse_fixed_folder
from medseg._support.folders import resolve_path
from medseg._support.platform.locks import LockedError, lock_folder
from medseg.downloads.archives import unpack
from medseg.downloads.catalogue import OpenDataset
from medseg.downloads.transfer import WAITS, Transfer
from medseg.errors import DownloadError, OutputError
from medseg.events import Listener, Notice, Progress, notify

RECEIPT = ".medseg-download.json"
"""The file in a data folder that says what was put there."""

_VERIFYING = "verifying (MB)"
_TOLERANCE = 1.2
"""How much larger an archive may be than the catalogue says, whose sizes are rounded."""
_UNPACKED = 2.0
"""How much larger its files may be: scans are compressed already."""
_CHUNK = 1 << 20
_PATIENCE = 0.2
"""Seconds between two looks whether another call has finished."""
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Installation:
    """An open data set, and where it goes.

    Attributes:
        dataset: The data set.
        folder: The folder to make.
        source: A mirror's address of the archive, or of a folder that holds it where it ends in
            ``/``; or an archive on this machine; ``""`` for the data set's own.
        listeners: Told of progress.
        waits: Seconds before each further try of a transfer.
    """

    dataset: OpenDataset
    folder: Path
    source: str = ""
    listeners: Sequence[Listener] = ()
    waits: Sequence[float] = WAITS

    def run(self) -> bool:
        """Fetch and unpack the data set; return whether there was anything to do.

        Raises:
            DownloadError: If it cannot be fetched, or what arrives is not the data set.
            OutputError: If the folder holds something else, cannot be written, or the disk has
                too little space.
        """
        if self._is_complete():
            return False
        refuse_fixed_folder(self.folder)
        local = self._find_local_archive()
        with self._hold_lock():
            # Another call may have finished while this one waited.
            if self._is_complete():
                return False
            if local is not None:
                self._require_space(0)
                self._verify(local)
                self._unpack(local)
            else:
                self._fetch_and_unpack()
        return True

    def _is_complete(self) -> bool:
        """Tell whether the folder holds the data set.

        Raises:
            OutputError: If it holds something else, or not all of it.
        """
        folder = self.folder
        if _is_free(folder):
            return False
        files = self._read_receipt()
        if files is None:
            raise OutputError(
                "is there already, and was not made by medseg download; if it is this data set, "
                "use it as it is, or else choose another folder with -o",
                source=folder,
            )
        lost = sum(
            not _has_size(folder / name, size) for name, size in files.items()
        )
        if lost:
            raise OutputError(
                f"{lost} of the {len(files)} files of this data set are missing or changed; move "
                "the folder away and download it again, or choose another one with -o",
                source=folder,
            )
        return True

    def _read_receipt(self) -> dict[str, int] | None:
        """Return path and size of each file that a download put there; ``None`` if none did."""
        try:
            text = (self.folder / RECEIPT).read_text(encoding="utf-8")
            receipt = json.loads(text)
            if receipt["md5"] != self.dataset.md5:
                return None
            return {
                str(name): int(size) for name, size in receipt["files"].items()
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def _find_local_archive(self) -> Path | None:
        """Return the archive on this machine that was named instead of an address.

        Raises:
            DownloadError: If there is none, or the address is of another kind.
        """
        scheme, is_url, _ = self.source.partition("://")
        if not self.source or (is_url and scheme.lower() in ("http", "https")):
            return None
        archive = Path(self.source)
        if archive.is_dir():
            archive = archive / self.dataset.archive
        if not is_url and archive.is_file():
            return archive
        raise DownloadError(
            "is neither an http or https address nor an archive on this machine",
            source=self.source,
        )

    @property
    def _target(self) -> Path:
        """The folder itself, where a link to one was given."""
        return resolve_path(self.folder)

    @property
    def _work(self) -> Path:
        """The hidden folder beside, which holds the archive until it is unpacked."""
        target = self._target
        return target.with_name(f"{PART}{target.name}")

    @contextmanager
    def _hold_lock(self) -> Iterator[None]:
        """Keep other calls for the same folder waiting."""
        try:
            lock = self._lock_work()
        except OSError as error:
            raise OutputError(
                "this folder cannot be written; choose another one with -o",
                source=self.folder.parent,
                detail=error.strerror,
            ) from error
        with lock:
            yield
        # Not before: Windows keeps a file that is locked.
        shutil.rmtree(self._work, ignore_errors=True)

    def _lock_work(self) -> ExitStack:
        is_told = False
        while True:
            # Whoever had the lock may have removed the folder with it.
            self._work.mkdir(parents=True, exist_ok=True)
            try:
                return lock_folder(self._work)
            except FileNotFoundError:
                continue
            except LockedError:
                if not is_told:
                    message = (
                        "another call is at work on this folder; waiting for it"
                    )
                    notify(self.listeners, Notice(message))
                is_told = True
                time.sleep(_PATIENCE)

    def _fetch_and_unpack(self) -> None:
        transfer = Transfer(
            self._choose_url(),
            self._work / "archive",
            int(self.dataset.bytes * _TOLERANCE),
            self.listeners,
            self.waits,
        )
        self._require_space(self.dataset.bytes - _get_size(transfer.file))
        went_on = transfer.fetch()
        try:
            self._verify(transfer.file)
        except DownloadError:
            transfer.forget()
            if not went_on:
                raise
            message = (
                "what arrived in parts does not fit together; fetching it anew"
            )
            notify(self.listeners, Notice(message))
            transfer.fetch()
            self._verify_fresh(transfer)
        self._unpack(transfer.file)
        transfer.forget()

    def _verify_fresh(self, transfer: Transfer) -> None:
        try:
            self._verify(transfer.file)
        except DownloadError:
            transfer.forget()
            raise

    def _choose_url(self) -> str:
        if self.source.endswith("/"):
            return self.source + self.dataset.archive
        return self.source or self.dataset.url

    def _require_space(self, missing: int) -> None:
        """Refuse to begin where the disk has too little space.

        Args:
            missing: Bytes of the archive that are still to come.
        """
        needed = max(missing, 0) + self.dataset.bytes
        free = shutil.disk_usage(self._work).free
        if free < needed:
            raise OutputError(
                f"about {format_size(needed)} are needed for the archive and its files, and "
                f"{format_size(free)} are free; choose a folder on another disk with -o",
                source=self.folder.parent,
            )

    def _verify(self, archive: Path) -> None:
        """Compare an archive's checksum with the catalogue's.

        Raises:
            DownloadError: If it is another one.
        """
        digest = hashlib.md5(usedforsecurity=False)
        total = -(-archive.stat().st_size // _MB)
        done = 0
        with archive.open("rb") as stream:
            while piece := stream.read(_CHUNK):
                digest.update(piece)
                done += len(piece)
                event = Progress(_VERIFYING, done // _MB, total)
                notify(self.listeners, event)
        notify(self.listeners, Progress(_VERIFYING, total, total))
        if digest.hexdigest() != self.dataset.md5:
            raise DownloadError(
                "the archive's checksum is not that of the data set, so nothing was unpacked: it "
                "was damaged on the way, or is another version; try again, or name another "
                "mirror with --url"
            )

    def _unpack(self, archive: Path) -> None:
        most_bytes = int(self.dataset.bytes * _UNPACKED)
        with atomic_folder(self._target) as temporary:
            files = unpack(archive, temporary, most_bytes, self.listeners)
            files.pop(RECEIPT, None)
            receipt = {
                "name": self.dataset.name,
                "md5": self.dataset.md5,
                "licence": self.dataset.licence,
                "citation": self.dataset.citation,
                "files": files,
            }
            text = json.dumps(receipt, indent=1, ensure_ascii=False)
            (temporary / RECEIPT).write_bytes(text.encode())


def format_size(number: int) -> str:
    """Return a number of bytes for people.

    Examples:
        >>> format_size(28_400_000), format_size(7_610_000_000)
        ('28 MB', '7.6 GB')
    """
    if number < 1000 * _MB:
        return f"{number / _MB:.0f} MB"
    return f"{number / (1000 * _MB):.1f} GB"


def _is_free(folder: Path) -> bool:
    """Tell whether nothing is there, or an empty folder.

    Raises:
        OutputError: If it cannot be looked at.
    """
    try:
        if not folder.exists():
            return True
        return folder.is_dir() and not any(folder.iterdir())
    except OSError as error:
        raise OutputError(
            "this folder cannot be read; choose another one with -o",
            source=folder,
            detail=error.strerror,
        ) from error


def _get_size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _has_size(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size
