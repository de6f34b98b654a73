"""Scans in an object store: some at a time are fetched, segmented, and their results put back."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medseg._support.addresses import hide_credentials, is_address
from medseg._support.files import write_atomically
from medseg._support.store_errors import StorageError
from medseg._support.work_folder import work_folder
from medseg.bundle.spec import ChannelSpec
from medseg.commands.batch import Batch
from medseg.commands.remote_batch import RemoteFolder
from medseg.commands.report import summarise
from medseg.datasets.fetched_scans import FetchedScans, fetch_rounds
from medseg.datasets.remote_scans import (
    RemoteScans,
    find_remote_scans,
    lists_addresses,
)
from medseg.errors import MedsegError
from medseg.events import Event, Notice, ScanDone, notify
from medseg.inference.batch_state import STATE, read_state
from medseg.inference.devices_of_batch import keep_segmenters
from medseg.inference.earlier_results import warn_of_earlier
from medseg.inference.entries import EntryList
from medseg.inference.failures import is_bug
from medseg.inference.ledger import open_ledger, read_ledger
from medseg.inference.ledger_entry import Entry
from medseg.inference.method import tell_time
from medseg.inference.shards import Shard, parse_shard
from medseg.names import LEDGER, abbreviate

ROUND_SCANS = 64
ROUND_BYTES = 4 << 30
"""What is fetched at a time; twice as much lies here, since the next scans come meanwhile."""

_DISK_SHARE = 4
"""Of a small disk, a round takes this part at most."""

_SECONDS_TO_STOP = 1.0

_WHOLE = Shard(1, 1)


def needs_store(
    scans: str | Path, out: str | Path, channels: Sequence[ChannelSpec]
) -> bool:
    """Tell whether scans, or where their results go, lie in an object store.

    Args:
        scans: The scans.
        out: Where their results go.
        channels: The bundle's.
    """
    scans, out = str(scans), str(out)
    if is_address(scans) or is_address(out):
        return True
    return lists_addresses(scans, _list_names(channels))


def segment_remote(
    function: Callable[..., Batch],
    given: Mapping[str, Any],
    channels: Sequence[ChannelSpec],
) -> Batch:
    """Segment scans that are, or whose results are, in an object store.

    Args:
        function: Segments scans that lie here.
        given: Its arguments.
        channels: The bundle's.

    Raises:
        MedsegError: If a table of sources, or a cluster, is asked for.
        DatasetError: If there is no scan.
        OutputError: If something else lies at the address of the results.
        StorageError: If a store cannot be read or written; what was done stays done.
    """
    if given.get("sources"):
        raise MedsegError(
            "a table of sources tells of files on this machine; scans in an object store have a "
            "list of their own, which says where each is"
        )
    if given.get("on"):
        raise MedsegError(
            "a cluster works on folders that all its nodes share; scans and results in an object "
            "store are divided among machines by --shard"
        )
    scans, out = str(given["scans"]), str(given["out"])
    shard = parse_shard(given["shard"]) if given.get("shard") else None
    part = shard or _WHOLE
    with work_folder() as work:
        found = find_remote_scans(
            scans, work, part.holds, _list_names(channels)
        )
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
    results, errors = rounds.results, rounds.errors
    if folder is None:
        return Batch(here, results, {}, errors, 0, shard)
    return Batch(folder.address, results, {}, errors, 0, shard, folder.address)


def _list_names(channels: Iterable[ChannelSpec]) -> list[str]:
    return [channel.name for channel in channels]


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
        total: How many scans there are.
        done: The scans whose new results were not put yet.
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
    total: int = 0
    done: set[str] = field(default_factory=set)
    bug: Exception | None = None

    def run(self, work: Path) -> None:
        """Segment all scans; what is done stays done, also where something ends it early."""
        self._tell(self.found.notes)
        self.total = len(self.found.scans)
        is_whole = False
        try:
            with keep_segmenters():
                for fetched in _fetch_ahead(self.found, work):
                    self._run_round(fetched)
                    shutil.rmtree(fetched.folder)
            is_whole = True
        finally:
            self._state_total(is_last=is_whole)
            if self.folder is not None:
                self.folder.put_done(self.part, self.done, now=True)

    def _run_round(self, fetched: FetchedScans) -> None:
        self._tell(_describe_fetched(fetched))
        if self.folder is not None:
            names = [scan.name for scan in fetched.scans]
            error_maps = self.given.get("error_maps", False)
            unreadable = self.folder.fetch_results(names, error_maps=error_maps)
            self._tell(_describe_unreadable(unreadable))
        self.total -= len(fetched.labels)
        self._state_total(is_last=False)
        try:
            batch = self._segment(fetched)
        except Exception as error:
            if not is_bug(error) or not self._has_ended():
                raise
            # As where all scans lie here, the others go first.
            self.bug = self.bug or error
            self._enter_round(self._read_done(), fetched)
            return
        self._enter_round(batch.results, fetched)

    def _read_done(self) -> Sequence[Entry]:
        """Read what was done of a round that returned nothing, and was not put yet."""
        ledger = self.here / self.part.folder / LEDGER
        entries, _ = read_ledger(ledger, self.done.__contains__)
        return entries.as_list()

    def _enter_round(
        self, results: Sequence[Entry], fetched: FetchedScans
    ) -> None:
        """Put the results of a round, and say what became of its scans."""
        unput = {}
        if self.folder is not None:
            unput = self.folder.put_results(results)
        for entry in results:
            if entry.scan not in unput:
                self.results.append(entry.model_dump_json().encode())
        self._enter_failed(fetched.failed | unput)
        self._state_total(is_last=False)
        if self.folder is not None:
            self.folder.put_ledger(self.part)
        self.done.clear()

    def _segment(self, fetched: FetchedScans) -> Batch:
        table = fetched.folder.with_suffix(".csv")
        fetched.write_table(table, self.found.columns)
        options = dict(self.given)
        options |= {"scans": table, "out": self.here}
        options |= {"shard": str(self.part), "allow_empty": True}
        # First: what is in the ledger is put, also where another listener fails.
        options["listeners"] = [self._note, *self.given.get("listeners", ())]
        batch = self.function(**options)
        self.errors.update(batch.full_errors)
        return batch

    def _enter_failed(self, errors: Mapping[str, StorageError]) -> None:
        """Enter the scans that could not be fetched, or whose results could not be put."""
        if not errors:
            return
        state = read_state(self.here / self.part.folder)
        now = tell_time()
        with open_ledger(self.here, shard=self.part) as ledger:
            for name, error in errors.items():
                entry = Entry(
                    scan=name,
                    state="failed",
                    error=error.message,
                    warnings=self._warn_of_stale(ledger.entries.get(name)),
                    bundle="" if state is None else state.title,
                    medseg=version("medseg"),
                    finished=now,
                )
                entry = ledger.enter(entry)
                self.results.append(entry.model_dump_json().encode())
                self.errors[name] = f"{error.message} ({error.source})"
                event = ScanDone(name, "failed", error.message, None)
                notify(self.given.get("listeners", ()), event)

    def _warn_of_stale(self, earlier: Entry | None) -> tuple[str, ...]:
        """Warn of files of an earlier result of a scan that could not be fetched."""
        files = [] if earlier is None else list(earlier.files)
        if self.folder is not None:
            return warn_of_earlier(list(filter(self.folder.has, files)))
        there = [file for file in files if (self.here / file).is_file()]
        return warn_of_earlier(there)

    def _note(self, event: Event) -> None:
        """Put what is done, each minute: a round takes hours where scans are large.

        Called while nothing is entered into the ledger, so that it names no file that is not put.
        """
        if self.folder is None or not isinstance(event, ScanDone):
            return
        if event.state == "done":
            self.done.add(event.name)
        if self.done and self.folder.is_due:
            self._state_total(is_last=False)
            if self.folder.put_done(self.part, self.done):
                self.done.clear()

    def _has_ended(self) -> bool:
        """Tell whether all scans at hand were worked on."""
        state = read_state(self.here / self.part.folder)
        return state is not None and bool(state.ended)

    def raise_bug(self) -> None:
        """Raise the first bug met, if there was one."""
        if self.bug is not None:
            raise self.bug

    def _state_total(self, *, is_last: bool) -> None:
        """Correct the state of the scans at hand: there are more, or these were the last."""
        file = self.here / self.part.folder / STATE
        state = read_state(file.parent)
        if state is None:
            return
        # What a round found is not all.
        totals = {"scans": self.total, "found": None}
        state = state.model_copy(update=totals | {"ended": ""})
        if is_last:
            state = state.end()
        text = state.model_dump_json(indent=2)
        write_atomically(file, f"{text}\n")

    def _tell(self, notes: Iterable[str]) -> None:
        for note in notes:
            notify(self.given.get("listeners", ()), Notice(note))


def _describe_fetched(fetched: FetchedScans) -> Iterator[str]:
    for address in fetched.missing:
        yield f"{hide_credentials(address)}: there is no such object"
    if fetched.labels:
        names = abbreviate(file.name for file in fetched.labels)
        yield f"{len(fetched.labels)} label maps were left out: {names}"


def _describe_unreadable(names: Sequence[str]) -> Iterator[str]:
    if names:
        yield (
            f"{len(names)} earlier results cannot be read, and their scans are segmented again: "
            f"{abbreviate(names)}"
        )


def _summarise(folder: RemoteFolder | None, here: Path, *, pages: bool) -> None:
    if folder is not None and pages:
        folder.fetch_pictures()
    summarise(here, pages=pages)
    if folder is not None:
        folder.put_summaries()


def _fetch_ahead(found: RemoteScans, work: Path) -> Iterator[FetchedScans]:
    """Fetch the next scans while those before them are segmented."""
    is_over = threading.Event()
    room = shutil.disk_usage(work).free // _DISK_SHARE
    rounds = fetch_rounds(
        itertools.takewhile(lambda _: not is_over.is_set(), found.scans),
        lambda: Path(tempfile.mkdtemp(dir=work, prefix="scans-")),
        most_scans=ROUND_SCANS,
        most_bytes=min(ROUND_BYTES, room),
    )
    ahead = _fetch_next(rounds)
    try:
        while (fetched := ahead.result()) is not None:
            fetched.set_labels_apart()
            ahead = _fetch_next(rounds)
            yield fetched
    finally:
        is_over.set()
        # A store may not answer for minutes: whoever is told to stop puts what is done.
        wait([ahead], timeout=_SECONDS_TO_STOP)


def _fetch_next(
    rounds: Iterator[FetchedScans],
) -> Future[FetchedScans | None]:
    """Fetch a round in a thread that keeps no process from ending."""
    future: Future[FetchedScans | None] = Future()

    def run() -> None:
        try:
            future.set_result(next(rounds, None))
        except Exception as error:  # noqa: BLE001 - raised where the round is waited for
            future.set_exception(error)

    threading.Thread(target=run, name="medseg-fetch", daemon=True).start()
    return future
