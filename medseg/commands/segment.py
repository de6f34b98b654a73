"""``medseg segment``: scans in; label maps, a ledger, a table of volumes and a report out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg._support.files import write_atomically
from medseg.bundle.bundle import load_bundle
from medseg.bundle.spec import BundleSpec
from medseg.datasets.names import make_printable
from medseg.datasets.redaction import discreet_left_out
from medseg.datasets.scans import ScanList, find_scans
from medseg.events import Listener, Notice, Progress, notify
from medseg.inference.batch import ScanWork
from medseg.inference.ledger import Entry, Ledger, open_ledger, worst_first
from medseg.inference.pipeline import run_pipeline
from medseg.inference.report import PREVIEWS, VOLUMES, volumes_csv, write_report
from medseg.inference.result_files import ERROR_MAPS, choose_formats, refuse_overwriting
from medseg.inference.segmenter import Segmenter

SEARCHING = "looking for scans"
"""The name of the search in progress events."""

_FILES_PER_EVENT = 50


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of all scans.

    Attributes:
        out: Where the results are.
        results: One per scan, in the order worked on.
        places: Scan → where it was found, for the person who called; in no result.
    """

    out: Path
    results: tuple[Entry, ...]
    places: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def to_review(self) -> tuple[Entry, ...]:
        """The results that someone should look at first, worst first."""
        flagged = [one for one in self.results if one.quality is not None and one.quality.review]
        return tuple(sorted(flagged, key=worst_first))

    @property
    def failed(self) -> tuple[Entry, ...]:
        """The scans without a result."""
        return tuple(entry for entry in self.results if not entry.is_good)


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
    formats: Sequence[str] = (),
    report: bool = True,
    error_maps: bool = False,
    resample_uneven: bool = False,
    names_from_headers: bool = False,
    listeners: Sequence[Listener] = (),
) -> Batch:
    """Segment a scan, a folder of scans or a list of scans.

    Each label map lies on its scan's own grid and appears whole or not at all. A bad scan is
    named with its fault and never stops the others. What a call that was stopped or killed has
    done stays done: the same call again works only on scans that are new or were changed, whose
    results are gone or were changed, or that failed.

    Args:
        bundle: A trained bundle.
        scans: A file, a folder (searched with all below it) or a CSV.
        out: The folder for results; made if needed.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        backend: ``auto``, ``torch`` or ``openvino``; see ``Segmenter``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``; see ``Segmenter``.
        mirror: Whether to average over flips; as the bundle says unless given.
        fold_ensemble: Whether to average over the networks of all folds, where there are several.
        formats: Result files of each scan: ``nifti``, or ``png`` for pictures, unless given.
        report: Whether to draw pictures and write ``OUT/report.html``.
        error_maps: Whether to write, for each scan, where its labels are probably wrong: a map
            in percent on the scan's grid, in ``OUT/error_maps``.
        resample_uneven: Whether DICOM slices at uneven distances are interpolated onto a
            regular grid, rather than refused. NIfTI results lie on that grid, DICOM results on
            the slices.
        names_from_headers: Whether results of DICOM series are named by patient, study and
            series, rather than by a hash.
        listeners: Told of progress and warnings, of progress in another thread.

    Returns:
        What became of each scan; also in ``OUT/ledger.jsonl`` and ``OUT/volumes.csv``.

    Raises:
        BundleError: If the bundle is wrong.
        CheckpointError: If it has no weights.
        MissingExtraError: If the backend is not installed.
        MedsegError: If there is no such device, backend or precision.
        DatasetError: If there is no scan.
        OutputError: If ``out`` cannot be written, holds the scans, or another process is
            segmenting into it.
        Exception: The first bug that a scan met, once all others are done.
    """
    scans, out = Path(scans), Path(out)
    trained = load_bundle(bundle)
    kinds = choose_formats(formats, trained.spec)
    found = find_scans(
        scans,
        len(trained.spec.channels),
        _progress(listeners),
        names_from_headers=names_from_headers,
    )
    refuse_overwriting(scans, out, found.scans, kinds)
    segmenter = Segmenter(
        trained,
        device,
        backend=backend,
        precision=precision,
        mirror=mirror,
        fold_ensemble=fold_ensemble,
    )
    with open_ledger(out, [PREVIEWS, ERROR_MAPS]) as ledger:
        _tell_notes(found, ledger, listeners)
        work = ScanWork(
            segmenter,
            ledger,
            kinds,
            total=len(found.scans),
            pictures=report,
            error_maps=error_maps,
            resample_uneven=resample_uneven,
            listeners=listeners,
        )
        left_out = [discreet_left_out(entry, scans) for entry in found.left_out]
        refused = [work.refuse(fault) for fault in left_out]
        results = run_pipeline(
            found.scans,
            read=work.read,
            infer=work.infer,
            write=work.finish,
            name=lambda scan: scan.name,
        )
        _sum_up(ledger, trained.spec, report)
    work.raise_bug()
    return Batch(out, (*refused, *results), _describe_places(found, scans))


def _progress(listeners: Sequence[Listener]) -> Callable[[int, int], None]:
    """Return what tells listeners of a search, not of every file: there may be very many."""

    def looked(done: int, total: int) -> None:
        if done % _FILES_PER_EVENT == 0 or done == total:
            notify(listeners, Progress(SEARCHING, done, total))

    return looked


def _tell_notes(found: ScanList, ledger: Ledger, listeners: Sequence[Listener]) -> None:
    for note in found.notes:
        notify(listeners, Notice(make_printable(note)))
    if ledger.damaged:
        count = f"{ledger.damaged} line{'s' * (ledger.damaged > 1)} of the ledger"
        notify(listeners, Notice(f"{count} cannot be read; what they were about is done again"))


def _describe_places(found: ScanList, root: Path) -> dict[str, str]:
    """Return where each scan, and what was left out, was found, by its name in results."""
    places = {scan.name: _place(scan.parts[0][0], root) for scan in found.scans}
    return places | {entry.name: make_printable(entry.where) for entry in found.left_out}


def _place(file: Path, root: Path) -> str:
    return make_printable(str(file.relative_to(root)) if file.is_relative_to(root) else file.name)


def _sum_up(ledger: Ledger, spec: BundleSpec, report: bool) -> None:
    """Write what stands above single scans, of all that the ledger knows."""
    entries = ledger.entries.values()
    write_atomically(ledger.folder / VOLUMES, volumes_csv(entries, spec.label_set))
    if report:
        write_report(ledger.folder, entries, f"{spec.name} {spec.version}", spec.label_set)
