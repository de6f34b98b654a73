"""``medseg report``: what became of a batch, whoever did its scans and while they do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg._support.addresses import is_address
from medseg._support.long_tables import import_pyarrow
from medseg.commands.remote_batch import make_no_results_error, open_remote
from medseg.inference.batch_overview import survey
from medseg.inference.batch_state import BatchProgress, read_progress
from medseg.inference.ledger import read_ledgers
from medseg.inference.ledger_entry import Entry, Outcomes
from medseg.inference.report import write_summaries
from medseg.inference.scan_counts import ScanCounts
from medseg.inference.shards import Shard, is_at_work, list_shards
from medseg.inference.volumes_table import (
    VOLUMES_PARQUET,
    write_volumes_parquet,
)
from medseg.labels import LabelSet
from medseg.names import LEDGER, abbreviate


@dataclass(frozen=True, slots=True)
class BatchReport(Outcomes):
    """What became of the scans of a batch so far.

    Attributes:
        out: Where the results are.
        entries: The latest entry of each scan, in the order in which scans first came.
        scans: How many scans there are; ``None`` while that is not known.
        working: How many processes are at work.
        to_start: The shards that never began, or ended before they were done; those, too, that
            looked for scans before others were added, or whose ledger has lost some.
        is_whole: Whether all scans are done.
        damaged: How many lines of the ledgers cannot be read.
        remarks: What a person should know of the results as a whole.
        address: Where the results are, if that is an object store.

    Examples:
        >>> from pathlib import Path
        >>> from medseg import BatchReport
        >>> report = BatchReport(Path("results"), entries=())
        >>> report.failed
        ()
    """

    out: Path | str
    entries: Sequence[Entry]
    scans: int | None = None
    working: int = 0
    to_start: tuple[Shard, ...] = ()
    is_whole: bool = True
    damaged: int = 0
    remarks: tuple[str, ...] = ()
    address: str = ""

    @property
    def place(self) -> str:
        """Where the results are: their folder, or their address."""
        return self.address or str(self.out)

    def _list_entries(self) -> Sequence[Entry]:
        return self.entries


def report(out: str | Path, *, parquet: bool = False) -> BatchReport:
    """Write ``report.html`` and ``volumes.csv`` of a folder of results from all its ledgers.

    It may be called at any time, also while shards work; then it shows what is done so far.

    Args:
        out: The folder of results, or its address in an object store.
        parquet: Whether to write ``volumes.parquet``, too: the same table with types.

    Returns:
        What became of the scans.

    Raises:
        DatasetError: If the folder holds no results of ``medseg segment``.
        MissingExtraError: If ``parquet`` is asked for and pyarrow is not installed.
        OutputError: If it cannot be read or written.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import medseg
        >>> from medseg.testing import write_dataset, write_example_bundle
        >>> folder = Path(tempfile.mkdtemp())
        >>> data = write_dataset(folder / "data", 2, shape=(24, 20, 16), spacing=9.0)
        >>> bundle = write_example_bundle(trained=True)
        >>> for shard in ("1/2", "2/2"):
        ...     _ = medseg.segment(bundle, data / "imagesTr", folder / "out", shard=shard)
        >>> len(medseg.report(folder / "out").good)
        2
    """
    if parquet:
        import_pyarrow()  # or else refused before anything is written
    if not is_address(out):
        return summarise(Path(out), parquet=parquet)
    with open_remote(str(out)) as folder:
        folder.fetch_pictures()
        result = summarise(folder.here, parquet=parquet)
        folder.put_summaries()
        address = folder.address
        return replace(result, out=address, address=address)


def summarise(
    out: Path, *, pages: bool = True, parquet: bool = False
) -> BatchReport:
    """Write what stands above single scans, and return it.

    Args:
        out: The folder of results.
        pages: Whether to write ``report.html``.
        parquet: Whether to write ``volumes.parquet``.

    Raises:
        DatasetError: If the folder holds no results of ``medseg segment``.
        OutputError: If it cannot be read or written.
    """
    if not (out / LEDGER).is_file():
        raise make_no_results_error(out)
    progress, working, stopped = _look(out)
    # Read after the states: what a shard did before its end is in its ledger by then.
    ledgers, damaged = read_ledgers(out)
    entries = ledgers.as_list()
    title, label_set = _describe_results(progress, entries)
    overview = survey(entries, label_set)
    write_summaries(out, overview, title, report=pages)
    if parquet:
        write_volumes_parquet(out / VOLUMES_PARQUET, overview)
    outdated = progress.list_outdated()
    unentered = progress.list_unentered(ledgers)
    waiting = progress.list_waiting()
    to_start = {*stopped, *waiting, *outdated, *unentered}
    return BatchReport(
        out,
        entries,
        progress.scans,
        len(working),
        tuple(sorted(shard for shard in to_start if shard is not None)),
        is_whole=not to_start
        and _may_be_whole(out, progress, len(entries), damaged),
        damaged=damaged,
        remarks=tuple(_list_remarks(outdated, unentered, overview.counts)),
    )


def _look(
    out: Path,
) -> tuple[BatchProgress, list[Shard | None], list[Shard | None]]:
    """Read how far a batch is, and find who is at work on it and who has stopped before the end."""
    before = read_progress(out).list_unfinished()
    at_work = [shard for shard in before if is_at_work(out, shard)]
    # Who is not at work any more may have come to its end between two looks.
    progress = read_progress(out)
    unfinished = progress.list_unfinished()
    working = [shard for shard in unfinished if shard in at_work]
    stopped = [
        shard
        for shard in unfinished
        if shard in before and shard not in at_work
    ]
    return progress, working, stopped


def _may_be_whole(
    out: Path, progress: BatchProgress, entries: int, damaged: int
) -> bool:
    """Tell whether nothing speaks against it: results of former versions say no more."""
    if progress.newest is not None:
        return not progress.list_unfinished()
    # Who has just begun has not said so yet.
    has_begun = entries == 0 or bool(list_shards(out))
    return not has_begun and not damaged


def _list_remarks(
    outdated: Collection[Shard],
    unentered: Collection[Shard | None],
    counts: ScanCounts,
) -> Iterator[str]:
    if outdated:
        shards = abbreviate(map(str, sorted(outdated)))
        yield f"scans were added after these shards had looked for them: {shards}"
    if unentered:
        yield (
            "some scans that were done are in no ledger any more; segmented again, they are "
            "entered again"
        )
    if counts.bundles:
        yield counts.bundles


def _describe_results(
    progress: BatchProgress, entries: Iterable[Entry]
) -> tuple[str, LabelSet]:
    """Return the bundle's name and version, and the labels of the results."""
    state = progress.newest
    if state is not None:
        return state.title, state.label_set
    # Results of former versions: what their labels look like is not known.
    title = next((entry.bundle for entry in entries if entry.bundle), "")
    return title, LabelSet(())
