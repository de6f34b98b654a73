"""Results in an object store: ledgers are fetched, what is new is put there.

A store has no locks, and nothing in it grows: ledgers are kept here and put there whole, each
minute and at the end. What was put without its line in the ledger is done again. A ledger that
another call has put meanwhile is not replaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from medseg._support.addresses import join_address
from medseg._support.object_listing import list_objects
from medseg._support.object_store import (
    StoredObject,
    fetch,
    look_at,
    put,
    refuse_read_only,
)
from medseg._support.store_errors import (
    NoAnswerError,
    NoObjectError,
    StorageError,
)
from medseg._support.work_folder import work_folder
from medseg.datasets.fetched_scans import MOST_SILENT
from medseg.errors import BusyError, DatasetError, OutputError
from medseg.inference.batch_state import STATE
from medseg.inference.entries import Entries
from medseg.inference.ledger import read_ledger, read_ledgers
from medseg.inference.ledger_entry import Entry
from medseg.inference.report_index import PAGES
from medseg.inference.report_rows import PREVIEWS, get_preview_path
from medseg.inference.result_files import SUMMARIES, list_error_map_paths
from medseg.inference.shards import SHARDS, Shard
from medseg.inference.volumes_table import VOLUMES_PARQUET
from medseg.names import LEDGER

LEDGER_SECONDS = 60.0
"""How much work may be lost with this machine."""

_FEWEST_FOR_LINKS = 300


@dataclass(slots=True)
class RemoteFolder:
    """Results in an object store, and what of them lies here.

    Attributes:
        address: Where they are.
        here: The folder of the same form on this machine: ledgers, and files on their way.
        entries: Scan → its entry, as the call began.
    """

    address: str
    here: Path
    entries: Entries = field(default_factory=Entries)
    _put_at: float = 0.0
    _ledgers: dict[str, StoredObject] = field(default_factory=dict)
    _unsure: set[str] = field(default_factory=set)

    def begin(self) -> None:
        """Fetch the ledgers; begin a folder of results where there is none.

        Raises:
            OutputError: If there is something else than results.
            StorageError: If the store cannot be read or written.
        """
        if self.fetch_ledgers():
            return
        has_others = self._has_others()
        # Of shards that start at once, another may have begun meanwhile.
        if self.fetch_ledgers():
            return
        if has_others:
            raise OutputError(
                f"something lies here that is no result of medseg (there is no {LEDGER}); give "
                "another address, so that nothing is replaced",
                source=self.address,
            )
        # It marks a folder of results.
        (self.here / LEDGER).touch()
        self._put(self.here / LEDGER)

    def fetch_ledgers(self) -> bool:
        """Fetch the ledgers; tell whether there are results.

        Raises:
            StorageError: If the store cannot be read.
        """
        refuse_read_only(self.address)
        self.here.mkdir(parents=True, exist_ok=True)
        if not self._fetch(LEDGER):
            return False
        self._fetch(STATE)
        shards = join_address(self.address, SHARDS)
        for stored in list_objects(f"{shards}/"):
            *_, shard, name = stored.address.split("/")
            if name in (LEDGER, STATE):
                fetched = fetch(stored, self.here / SHARDS / shard / name)
                self._ledgers[stored.address] = fetched
        self.entries, _ = read_ledgers(self.here)
        return True

    def _has_others(self) -> bool:
        """Tell whether there is anything but ledgers of shards."""
        shards = join_address(self.address, SHARDS, "")
        for stored in list_objects(f"{self.address}/"):
            if not stored.address.startswith(shards):
                return True
        return False

    def _fetch(self, *names: str) -> bool:
        """Fetch a file if it is there."""
        try:
            stored = look_at(join_address(self.address, *names))
        except NoObjectError:
            return False
        fetch(stored, self.here.joinpath(*names))
        return True

    def fetch_results(
        self, names: Iterable[str], *, error_maps: bool = False
    ) -> list[str]:
        """Fetch earlier results of scans, which are kept where they would come out the same.

        Args:
            names: The scans.
            error_maps: Whether a result is kept only with its error map.

        Returns:
            The scans of whose results a file cannot be read; they are segmented again.

        Raises:
            StorageError: If the store has no answer for several scans in succession.
        """
        errors = _try_each(
            names, lambda name: self._fetch_result(name, error_maps)
        )
        return list(errors)

    def _fetch_result(self, name: str, error_maps: bool) -> None:
        entry = self.entries.get(name)
        if entry is None or not entry.is_good:
            return
        for file in entry.files:
            self._fetch(file)
        others = [get_preview_path(self.here, name)]
        if error_maps:
            others += list_error_map_paths(self.here, name)
        for path in others:
            self._fetch(*path.relative_to(self.here).parts)

    def has(self, name: str) -> bool:
        """Tell whether there is a result file; one that cannot be looked at may be there."""
        try:
            look_at(join_address(self.address, name))
        except NoObjectError:
            return False
        except StorageError:
            return True
        return True

    def put_results(self, entries: Iterable[Entry]) -> dict[str, StorageError]:
        """Put the files of new results, and remove them here; in the end the ledger, too.

        Returns:
            Scan → why a file of its result cannot be put.

        Raises:
            StorageError: If the store has no answer for several scans in succession.
        """
        by_name = {entry.scan: entry for entry in entries}
        return _try_each(by_name, lambda name: self._put_result(by_name[name]))

    def _put_result(self, entry: Entry) -> None:
        files = [self.here / file for file in entry.files]
        files.append(get_preview_path(self.here, entry.scan))
        files += list_error_map_paths(self.here, entry.scan)
        for file in filter(Path.is_file, files):
            if entry.state == "done":
                self._put(file)
            file.unlink()

    @property
    def is_due(self) -> bool:
        """Whether the ledger was not put in the last minute."""
        return time.monotonic() - self._put_at >= LEDGER_SECONDS

    def put_done(
        self, shard: Shard, names: Collection[str], *, now: bool = False
    ) -> bool:
        """Put new results of scans, while others are worked on, and the ledger that names them.

        Returns:
            Whether all could be put. What could not is tried again in a minute and with its round,
            and no ledger names it before.
        """
        folder = self.here / shard.folder
        if not (folder / STATE).is_file():
            return True
        entries, _ = read_ledger(folder / LEDGER, names.__contains__)
        if self.put_results(entries.values()):
            self._put_at = time.monotonic()
            return False
        self.put_ledger(shard, now=now)
        return True

    def put_ledger(self, shard: Shard, *, now: bool = False) -> None:
        """Put the ledger of a shard, if it was not put in the last minute.

        Raises:
            BusyError: If another call has put one.
            StorageError: If it cannot be put.
        """
        if not now and not self.is_due:
            return
        address = join_address(self.address, shard.folder, LEDGER)
        self._refuse_second_writer(address)
        self._unsure.add(address)
        for name in (LEDGER, STATE):
            self._put(self.here / shard.folder / name)
        self._ledgers[address] = look_at(address)
        self._unsure.discard(address)
        self._put_at = time.monotonic()

    def _refuse_second_writer(self, ledger: str) -> None:
        if ledger in self._unsure:
            # Of a put that failed, nobody knows whether it arrived.
            return
        try:
            found = look_at(ledger)
        except NoObjectError:
            return
        if found != self._ledgers.get(ledger):
            raise BusyError(
                "another call is segmenting into this place, or into this shard of it; what this "
                "one did in the last minute is done again. Let one call at a time work, or "
                "divide the scans by --shard",
                source=self.address,
            )

    def _put(self, file: Path) -> None:
        place = file.relative_to(self.here).as_posix()
        put(file, join_address(self.address, place))

    def fetch_pictures(self) -> None:
        """Fetch the pictures of a report; of a long one, which links to them, their names alone."""
        previews = f"{join_address(self.address, PREVIEWS)}/"
        stored = list(list_objects(previews))
        is_long = len(stored) >= _FEWEST_FOR_LINKS
        for one in stored:
            file = self.here / PREVIEWS / one.address.rpartition("/")[2]
            if is_long:
                file.parent.mkdir(exist_ok=True)
                file.touch()
            else:
                fetch(one, file)

    def put_summaries(self) -> None:
        """Put the report and the tables of volumes."""
        names = (*SUMMARIES, VOLUMES_PARQUET)
        files = [self.here / name for name in names]
        files += (self.here / PAGES).glob("*.html")
        for file in filter(Path.is_file, files):
            self._put(file)


def _try_each(
    names: Iterable[str], action: Callable[[str], None]
) -> dict[str, StorageError]:
    """Do something for each scan; return why it cannot be done, for those where it cannot.

    Raises:
        StorageError: If the store has no answer for several in succession.
    """
    errors: dict[str, StorageError] = {}
    silence = 0
    for name in names:
        try:
            action(name)
            silence = 0
        except StorageError as error:
            has_answer = not isinstance(error, NoAnswerError)
            silence = 0 if has_answer else silence + 1
            if silence >= MOST_SILENT:
                raise
            errors[name] = error
    return errors


@contextmanager
def open_remote(address: str) -> Iterator[RemoteFolder]:
    """Fetch the ledgers of results in a store, for as long as they are needed.

    Raises:
        DatasetError: If there are none.
        StorageError: If the store cannot be read.
    """
    with work_folder() as work:
        results = RemoteFolder(address.rstrip("/"), work / "out")
        if not results.fetch_ledgers():
            raise make_no_results_error(results.address)
        yield results


def make_no_results_error(out: Path | str) -> DatasetError:
    """Make the error of a place that holds no results."""
    return DatasetError(
        f"this is no folder of results: it has no {LEDGER}; give the OUT of medseg segment",
        source=out,
    )
