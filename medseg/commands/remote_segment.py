"""Scans in an object store: some at a time are fetched, segmented, and their results put back."""

from __future__ import annotations

import functools
import inspect
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec

from medseg._support.files import write_atomically
from medseg._support.object_store import hide_query, is_address
from medseg.commands.batch import Batch
from medseg.commands.remote_batch import RemoteFolder, work_folder
from medseg.commands.report import summarise
from medseg.datasets.remote_scans import (
    FetchedScans,
    RemoteScans,
    fetch_rounds,
    find_remote_scans,
)
from medseg.errors import MedsegError
from medseg.events import Notice, notify
from medseg.inference.batch_state import STATE, read_state
from medseg.inference.entries import EntryList
from medseg.inference.failures import is_bug
from medseg.inference.ledger import read_ledger
from medseg.inference.ledger_entry import Entry
from medseg.inference.shards import Shard, parse_shard
from medseg.names import LEDGER, abbreviate

ROUND_SCANS = 64
ROUND_BYTES = 4 << 30
"""What is fetched at a time; twice as much lies here, since the next scans come meanwhile."""

P = ParamSpec("P")

_WHOLE = Shard(1, 1)


def reaching_stores(function: Callable[P, Batch]) -> Callable[P, Batch]:
    """Let ``segment`` take addresses of object stores for ``scans`` and ``out``."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def reach(*args: P.args, **options: P.kwargs) -> Batch:
        given = signature.bind(*args, **options).arguments
        if not is_address(given["scans"]) and not is_address(given["out"]):
            return function(*args, **options)
        return _segment_remote(function, given)

    return reach


def _segment_remote(
    function: Callable[..., Batch], given: Mapping[str, Any]
) -> Batch:
    """Segment scans that are, or whose results are, in an object store.

    Args:
        function: Segments scans that lie here.
        given: Its arguments.

    Raises:
        DatasetError: If there is no scan.
        OutputError: If something else lies at the address of the results.
        StorageError: If a store cannot be read or written; what was done stays done.
    """
    if given.get("sources"):
        raise MedsegError(
            "a table of sources tells of files on this machine; scans in an object store have a "
            "list of their own, which says where each is"
        )
    scans, out = str(given["scans"]), str(given["out"])
    shard = parse_shard(given["shard"]) if given.get("shard") else None
    part = shard or _WHOLE
    with work_folder() as work:
        found = find_remote_scans(scans, work, part.holds)
        folder, here = None, Path(out)
        if is_address(out):
            here = work / "out"
            folder = RemoteFolder(out.rstrip("/"), here)
            folder.begin()
        rounds = _Rounds(function, given, part, here, folder, found)
        rounds.run(work)
        if shard is None:
            _summarise(folder, here, pages=given.get("report", True))
    rounds.raise_bug()
    address = "" if folder is None else folder.address
    results, errors = rounds.results, rounds.errors
    return Batch(Path(out), results, {}, errors, 0, shard, address)


@dataclass(slots=True)
class _Rounds:
    """Segments scans that are fetched some at a time.

    Attributes:
        function: Segments scans that lie here.
        given: Its arguments.
        part: Which part of the scans to do.
        here: The folder of results on this machine.
        folder: The results in a store; ``None`` where they stay here.
        found: The scans.
        results: What became of them.
        errors: Scan → what is wrong with it, in full.
        bug: The first bug met.
    """

    function: Callable[..., Batch]
    given: Mapping[str, Any]
    part: Shard
    here: Path
    folder: RemoteFolder | None
    found: RemoteScans
    results: EntryList = field(default_factory=EntryList)
    errors: dict[str, str] = field(default_factory=dict)
    bug: Exception | None = None

    def run(self, work: Path) -> None:
        """Segment all scans."""
        self._tell(self.found.notes)
        total = len(self.found.scans)
        for fetched in _fetch_ahead(self.found, work):
            self._tell(_describe_fetched(fetched))
            if self.folder is not None:
                names = [scan.name for scan in fetched.scans]
                self.folder.fetch_results(names)
            done = self._segment(fetched)
            total -= len(fetched.labels)
            _state_total(self.here, self.part, total, is_last=False)
            self._put(done)
            shutil.rmtree(fetched.folder)
        _state_total(self.here, self.part, total, is_last=True)
        if self.folder is not None:
            self.folder.put_ledger(self.part, now=True)

    def raise_bug(self) -> None:
        """Raise the first bug met, if there was one; the other scans were finished."""
        if self.bug is not None:
            raise self.bug

    def _segment(self, fetched: FetchedScans) -> Sequence[Entry]:
        """Segment some scans; return what became of them."""
        table = fetched.folder.with_suffix(".csv")
        fetched.write_table(table, self.found.columns)
        options = dict(self.given)
        options |= {"scans": table, "out": self.here}
        options |= {"shard": str(self.part), "allow_empty": True}
        try:
            batch = self.function(**options)
        except BaseException as error:
            done = self._list_done(fetched)
            if isinstance(error, Exception) and is_bug(error):
                self.bug = self.bug or error
                return done
            # The folder goes with the call.
            self._put(done, now=True)
            raise
        self.errors.update(batch.full_errors)
        for entry in batch.results:
            self.results.append(entry.model_dump_json().encode())
        return batch.results

    def _list_done(self, fetched: FetchedScans) -> list[Entry]:
        """Return what the ledger has of some scans."""
        ledger = self.here / self.part.folder / LEDGER
        if not ledger.is_file():
            return []
        names = {scan.name for scan in fetched.scans}
        entries, _ = read_ledger(ledger, names.__contains__)
        return list(entries.values())

    def _put(self, done: Sequence[Entry], *, now: bool = False) -> None:
        if self.folder is not None and done:
            self.folder.put_results(done)
            self.folder.put_ledger(self.part, now=now)

    def _tell(self, notes: Iterable[str]) -> None:
        for note in notes:
            notify(self.given.get("listeners", ()), Notice(note))


def _describe_fetched(fetched: FetchedScans) -> Iterator[str]:
    for address in fetched.missing:
        yield f"{hide_query(address)}: there is no such object"
    if fetched.labels:
        names = abbreviate(file.name for file in fetched.labels)
        yield f"{len(fetched.labels)} label maps were left out: {names}"


def _summarise(folder: RemoteFolder | None, here: Path, *, pages: bool) -> None:
    if folder is not None and pages:
        folder.fetch_pictures()
    summarise(here, pages=pages)
    if folder is not None:
        folder.put_summaries()


def _fetch_ahead(found: RemoteScans, work: Path) -> Iterator[FetchedScans]:
    """Fetch the next scans while those before them are segmented."""
    rounds = fetch_rounds(
        found.scans,
        lambda: Path(tempfile.mkdtemp(dir=work, prefix="scans-")),
        most_scans=ROUND_SCANS,
        most_bytes=ROUND_BYTES,
    )
    with ThreadPoolExecutor(1, thread_name_prefix="medseg-fetch") as fetcher:
        ahead: Future[FetchedScans | None] = fetcher.submit(next, rounds, None)
        while (fetched := ahead.result()) is not None:
            fetched.set_labels_apart()
            ahead = fetcher.submit(next, rounds, None)
            yield fetched


def _state_total(out: Path, shard: Shard, total: int, *, is_last: bool) -> None:
    """Correct the state that the last scans left: there are more, or these were the last."""
    state = read_state(out / shard.folder)
    if state is None:
        return
    state = state.model_copy(update={"scans": total, "ended": ""})
    if is_last:
        state = state.end()
    text = state.model_dump_json(indent=2)
    write_atomically(out / shard.folder / STATE, f"{text}\n")
