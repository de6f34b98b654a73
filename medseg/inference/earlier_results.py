"""Which results of an earlier call are still valid and need not be computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg.bundle.hashes import hash_file
from medseg.datasets.cases import Scan
from medseg.errors import OutputError
from medseg.events import Listener, Notice, notify
from medseg.inference.ledger_entry import Entry

_READABLE = (".nii.gz", ".nrrd", ".mha", ".png")


class EarlierResults:
    """What a folder of results holds already.

    Args:
        out: The folder.
        entries: Scan → its entry in the ledger so far.
        listeners: Told when a result is replaced because something changed.
    """

    def __init__(
        self,
        out: Path,
        entries: Mapping[str, Entry],
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._out = out
        self._entries = entries
        self._listeners = listeners

    def find(
        self, scan: Scan, content: str, key: str, others: Sequence[Path] = ()
    ) -> Entry | None:
        """Return the entry of an earlier result that would come out the same.

        Args:
            scan: The scan.
            content: Hash of its files.
            key: Of the result it will have.
            others: Files that must be there besides those that the entry lists.

        Raises:
            OutputError: If a file of the result cannot be read.
        """
        entry = self._entries.get(scan.name)
        if entry is None or entry.state != "done":
            return None
        if entry.content != content:
            self._say(
                scan,
                "has changed, or is another scan of this name; its result is replaced",
            )
            return None
        if entry.key != key:
            return None
        files = [self._out / name for name in entry.files]
        if not all(file.is_file() for file in (*files, *others)):
            return None
        for file in files:
            if hash_result(file) != entry.files[file.name]:
                self._say(
                    scan,
                    f"{file.name} was changed since it was written; the scan is segmented again",
                )
                return None
        return entry

    def warn_of_stale(
        self, scan: Scan, names: Sequence[str] | None = None
    ) -> tuple[str, ...]:
        """Warn of files of an earlier result, which are kept: what failed now may be the disk.

        Args:
            scan: The scan.
            names: The files that were to be replaced and were not; all unless given.
        """
        earlier = self._entries.get(scan.name)
        if earlier is None:
            return ()
        files = []
        for name in earlier.files:
            is_meant = names is None or name in names
            if is_meant and (self._out / name).is_file():
                files.append(name)
        return warn_of_earlier(files)

    def _say(self, scan: Scan, what: str) -> None:
        notify(self._listeners, Notice(f"{scan.name}: {what}"))


def warn_of_earlier(files: Sequence[str]) -> tuple[str, ...]:
    """Warn of result files that lie there although their scan failed this time."""
    if not files:
        return ()
    return (
        f"{', '.join(files)} is of an earlier run, and may be of another scan",
    )


def find_label_map(entry: Entry) -> str | None:
    """Return the result file of an entry that can be read as a label map, if there is one."""
    for name in entry.files:
        if name.endswith(_READABLE):
            return name
    return None


def hash_result(file: Path) -> str:
    """Return the hash of a result file.

    Raises:
        OutputError: If it cannot be read.
    """
    try:
        return hash_file(file)
    except OSError as error:
        raise OutputError(
            "a result file cannot be read back",
            source=file,
            detail=error.strerror,
        ) from error
