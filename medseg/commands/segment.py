"""``medseg segment``: scans in; label maps, a ledger, a table of volumes and a report out."""

from __future__ import annotations

from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from medseg._support.folders import resolve_path
from medseg._support.ray_cluster import find_cluster
from medseg._support.task_needs import choose_needs
from medseg._support.threads import limit_threads
from medseg.bundle.bundle import load_bundle
from medseg.bundle.shipped import find_bundle_path
from medseg.bundle.spec import BundleSpec
from medseg.commands.batch import Batch, Places
from medseg.commands.remote_segment import needs_store, segment_remote
from medseg.datasets.scans import ScanList, describe_place, find_scans
from medseg.datasets.table_rows import NameRule
from medseg.events import BatchStarted, Listener, Notice, Progress, notify
from medseg.inference.batch import ScanBatch
from medseg.inference.batch_overview import survey
from medseg.inference.batch_state import (
    BatchState,
    find_former_begin,
    write_state,
)
from medseg.inference.entries import EntryList
from medseg.inference.ledger import Ledger, open_ledger
from medseg.inference.ledger_entry import Entry
from medseg.inference.output_folder import holds_no_others, refuse_overwriting
from medseg.inference.report import write_summaries
from medseg.inference.report_rows import PREVIEWS
from medseg.inference.result_files import ERROR_MAPS, choose_formats
from medseg.inference.scan_work import ResultOptions
from medseg.inference.shards import Shard, parse_shard
from medseg.inference.sources_table import SourcesTable
from medseg.inference.workers import open_workers
from medseg.names import hash_text, make_printable

SEARCHING = "looking for scans"
"""The name of the search in progress events."""

_FILES_PER_EVENT = 50


def segment(
    bundle: str | Path,
    scans: str | Path,
    out: str | Path,
    *,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    mirror: bool | None = None,
    fold_ensemble: bool = True,
    speed: str | None = None,
    labels: Sequence[str] | None = None,
    formats: Sequence[str] = (),
    report: bool = True,
    error_maps: bool = False,
    resample_uneven: bool = False,
    split_4d: str = "",
    names_from_headers: bool = False,
    modalities: Sequence[str] = (),
    allow_empty: bool = False,
    threads: int | None = None,
    sources: str | Path | None = None,
    shard: str = "",
    on: str = "",
    tasks_per_gpu: int = 1,
    listeners: Sequence[Listener] = (),
) -> Batch:
    """Segment a scan, a folder of scans or a list of scans.

    Each label map lies on its scan's own grid and appears whole or not at all. A bad scan is
    named with its fault and never stops the others. What a call that was stopped or killed has
    done stays done: the same call again works only on scans that are new or were changed, whose
    results are gone or were changed, or that failed.

    Args:
        bundle: A trained bundle, or an assembly of some.
        scans: A file, a folder (searched with all below it, label maps beside scans left out) or
            a table that lists them, CSV or Parquet. Or the address of such a thing in an object
            store, such as ``s3://bucket/scans``; DICOM there is listed in a table.
        out: The folder for results; made if needed. Or its address in an object store.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Several GPUs, as ``cuda:0,1``, or
            ``all`` of them, share the scans.
        backend: ``auto``, ``torch`` or ``openvino``; see ``Segmenter``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``; see ``Segmenter``.
        mirror: Whether to average over flips; as the bundle says unless given.
        fold_ensemble: Whether to average over the networks of all folds, where there are several.
        speed: ``exact``, ``balanced`` or ``fast``; see ``Segmenter``.
        labels: Names of the labels that results shall have; all unless given. Of an assembly, only
            the bundles that these need are run.
        formats: Result files of each scan: ``nifti``, or ``png`` for pictures, unless given. A
            scan that cannot have one of them gets the others.
        report: Whether to draw pictures and write ``OUT/report.html``.
        error_maps: Whether to write, for each scan, where its labels are probably wrong: a map
            in percent on the scan's grid, in ``OUT/error_maps``.
        resample_uneven: Whether DICOM slices at uneven distances are interpolated onto a
            regular grid, rather than refused. NIfTI results lie on that grid, DICOM results on
            the slices.
        split_4d: ``instance-number`` splits a DICOM series whose headers do not tell its volumes
            apart by the numbers of its slices, if those make complete volumes; unless given,
            such a series is refused.
        names_from_headers: Whether results of DICOM series are named by patient, study and
            series, rather than by a hash.
        modalities: DICOM's codes of what to segment, such as ``["CT"]``; series of others are
            skipped. Unless given, a series of a modality that the bundle does not take fails.
            Files that state no modality, such as NIfTI, are never skipped.
        allow_empty: Whether there may be nothing to segment; a folder that is not there is an
            error all the same.
        threads: How many threads arithmetic takes; as many as there are cores unless given.
        sources: A table to write that says of each result which files and which DICOM study and
            series it was made from. It may name patients, so only its owner may read it, and it
            must not lie in ``out``. Rows of earlier calls stay.
        shard: ``I/N`` does one of N parts, beside other processes that do the others into the
            same ``out``; ``auto`` takes it from a scheduler's variables. Unless given, all scans
            are done. Shards write no report and no table of volumes: ``medseg.report`` does.
        on: ``ray`` gives the scans out to a Ray cluster, that of this machine or of
            ``RAY_ADDRESS``; ``ray=HOST:PORT`` to that of this head. All nodes must see bundle,
            scans and ``out`` at the same paths. A scan whose process dies three times fails.
        tasks_per_gpu: How many scans share a GPU of the cluster.
        listeners: Told of progress and warnings, of progress in another thread.

    Returns:
        What became of each scan; also in ``OUT/ledger.jsonl`` and ``OUT/volumes.csv``.

    Raises:
        BundleError: If the bundle is wrong.
        CheckpointError: If it has no weights.
        MissingExtraError: If the backend is not installed; or Ray, where it is asked for.
        ClusterError: If the cluster cannot be reached, or has ended; what was done stays done.
        MedsegError: If there is no such device, backend or precision.
        DatasetError: If there is no scan.
        OutputError: If ``out`` or ``sources`` cannot be written, or ``out`` holds the scans.
        BusyError: If another process is segmenting into ``out``.
        Exception: The first bug that a scan met, once all others are done.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import medseg
        >>> from medseg.testing import write_dataset, write_example_bundle
        >>> folder = Path(tempfile.mkdtemp())
        >>> data = write_dataset(folder / "data", 2, shape=(24, 20, 16), spacing=9.0)
        >>> bundle = write_example_bundle(trained=True)
        >>> batch = medseg.segment(bundle, data / "imagesTr", folder / "results", device="cpu")
        >>> [(entry.scan, entry.state) for entry in batch.results]
        [('phantom_000', 'done'), ('phantom_001', 'done')]
    """
    # All that was given, by name: nothing else is there yet.
    given = dict(locals())
    trained = load_bundle(bundle)
    channels = trained.spec.channels
    if needs_store(scans, out, channels):
        return segment_remote(segment, given, channels)
    if on:
        find_cluster(on)
        choose_needs((), device, threads, tasks_per_gpu)
    scans, out = Path(scans), Path(out)
    chosen_formats = choose_formats(formats, trained.spec)
    part = parse_shard(shard) if shard else None
    holds = _hold_all if part is None else part.holds
    found = find_scans(
        scans,
        len(trained.spec.channels),
        _report_search(listeners),
        names_from_headers=names_from_headers,
        split_4d=split_4d,
        channel_specs=trained.spec.channels,
        modalities=modalities,
        allow_empty=allow_empty,
        is_wanted=_find_name_rule(part, out),
    )
    refuse_overwriting(scans, out, found.scans, chosen_formats)
    table = None if sources is None else SourcesTable(Path(sources), out)
    if table is not None:
        table.check()
    searched = hash_text(str(resolve_path(scans)))
    choices = {
        "backend": backend,
        "precision": precision,
        "mirror": mirror,
        "fold_ensemble": fold_ensemble,
        "speed": speed,
        "labels": labels,
    }
    with (
        limit_threads(threads),
        open_workers(
            trained,
            device,
            choices,
            path=find_bundle_path(bundle),
            root=scans,
            on=on,
            threads=threads,
            tasks_per_gpu=tasks_per_gpu,
            listeners=listeners,
        ) as workers,
        _open_ledger(out, part, found.list_renamed()) as ledger,
    ):
        total = found.total
        found = found.keep_former_names(ledger.entries)
        # By the names that results have: they do not change when scans are added.
        found = found.choose(holds)
        if table is not None:
            # Before the first result is there, so that none is ever without its source.
            table.enter(found.scans)
        _send_notices(found, ledger, listeners)
        start = _describe_start(found, trained.spec)
        notify(listeners, start)
        former = find_former_begin(out, part)
        state = BatchState.begin(trained.spec, start.total, total, former)
        write_state(ledger, state)
        batch = ScanBatch(
            workers.method,
            ledger,
            chosen_formats,
            ResultOptions(report, error_maps, resample_uneven, searched),
            total=len(found.scans),
            listeners=listeners,
        )
        results = _enter_left_out(batch, found, ledger)

        def record(entry: Entry, seconds: Mapping[str, float]) -> int:
            entered = batch.record(entry, seconds)
            return results.keep(ledger.entries.format(entered))

        run = workers.prepare(batch)
        numbers: list[int] = run(found.scans, record=record)
        for number in numbers:
            results.place(number)
        others = ledger.entries.list_others(_list_names(found))
        batch.close_failures(others, holds)
        gone = _count_gone(ledger, searched, others, holds)
        if part is None:
            overview = survey(ledger.entries.as_list(), state.label_set)
            write_summaries(out, overview, state.title, report=report)
        write_state(ledger, state.end())
    batch.raise_bug()
    return Batch(
        out,
        results,
        Places(partial(_describe_places, found, scans)),
        _describe_errors(found, batch.full_errors),
        gone,
        part,
    )


def _open_ledger(
    out: Path, part: Shard | None, renamed: Collection[str]
) -> AbstractContextManager[Ledger]:
    return open_ledger(out, [PREVIEWS, ERROR_MAPS], part, renamed)


def _describe_start(found: ScanList, spec: BundleSpec) -> BatchStarted:
    title = f"{spec.name} {spec.version}"
    total = len(found.scans) + len(found.left_out)
    return BatchStarted(total, len(found.skipped), title)


def _find_name_rule(part: Shard | None, out: Path) -> NameRule | None:
    """Return which names a search may keep to; of a shard, its own.

    Where results could replace files of others, all names must be known.
    """
    if part is None or not holds_no_others(out):
        return None
    return part.holds


def _hold_all(name: str) -> bool:
    """Tell that a scan of this name is to be done: without shards every one is."""
    return True


def _enter_left_out(
    batch: ScanBatch, found: ScanList, ledger: Ledger
) -> EntryList:
    """Enter what is no scan or was not asked for."""
    results = EntryList()
    for left_out in found.left_out:
        refused = batch.refuse(left_out.result_fault)
        results.append(ledger.entries.format(refused))
    for skipped in batch.skip(found.skipped):
        results.append(ledger.entries.format(skipped))
    return results


def _count_gone(
    ledger: Ledger,
    searched: str,
    others: Iterable[str],
    holds: Callable[[str], bool],
) -> int:
    """Count the results whose scans are no longer where they were found; they are kept."""
    count = 0
    for entry in map(ledger.entries.__getitem__, others):
        is_gone = entry.is_good and holds(entry.scan)
        count += is_gone and entry.searched == searched
    return count


def _list_names(found: ScanList) -> Iterator[str]:
    """Give what results call everything that was found."""
    for _, name, _ in found.scans.list_names():
        yield name
    for entry in (*found.left_out, *found.skipped):
        yield entry.name


def _report_search(listeners: Sequence[Listener]) -> Callable[[int, int], None]:
    """Return what tells listeners of a search, not of every file: there may be very many."""

    def report(done: int, total: int) -> None:
        if done % _FILES_PER_EVENT == 0 or done == total:
            notify(listeners, Progress(SEARCHING, done, total))

    return report


def _send_notices(
    found: ScanList, ledger: Ledger, listeners: Sequence[Listener]
) -> None:
    for note in found.notes:
        notify(listeners, Notice(make_printable(note)))
    if ledger.damaged:
        lines = "1 line" if ledger.damaged == 1 else f"{ledger.damaged} lines"
        text = f"{lines} of the ledger cannot be read; these scans are segmented again"
        notify(listeners, Notice(text))


def _describe_places(found: ScanList, root: Path) -> dict[str, str]:
    """Return where each scan, and what was left out, was found, by its name in results."""
    places = {scan.name: describe_place(scan, root) for scan in found.scans}
    for entry in (*found.left_out, *found.skipped):
        places[entry.name] = entry.where
    return {name: make_printable(place) for name, place in places.items()}


def _describe_errors(
    found: ScanList, of_scans: Mapping[str, str]
) -> dict[str, str]:
    """Return what is wrong with scans, and with what was left out, by its name in results."""
    errors = dict(of_scans)
    for entry in found.left_out:
        text = entry.reason
        if entry.detail:
            text = f"{text} ({entry.detail})"
        errors[entry.name] = text
    return {name: make_printable(text) for name, text in errors.items()}
