"""What is done to each scan of a batch, and how its end is entered into the ledger.

A fault of the scan ends that scan alone and says what to do. A bug ends that scan, too, is
entered as an error and raised when the batch is over. A folder that can no longer be written to
ends the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

from medseg._support.files import write_atomically
from medseg._support.provenance import get_device_name
from medseg.bundle.hashes import hash_bundle, hash_file
from medseg.datasets.cases import Scan
from medseg.datasets.input_checks import check_kind, check_volume
from medseg.datasets.integrity import read_scan
from medseg.datasets.redaction import discreet
from medseg.errors import Fault, MedsegError, OutputError
from medseg.events import Listener, Notice, Progress, notify
from medseg.inference.failures import is_of_the_folder, is_out_of_memory, let_go
from medseg.inference.hashes import hash_scan, result_key
from medseg.inference.ledger import Entry, Ledger, QualityEntry, State
from medseg.inference.pipeline import Attempt
from medseg.inference.report import preview_file
from medseg.inference.result_files import ResultFormat, error_map_file, refuse_format
from medseg.inference.segmentation import Segmentation
from medseg.inference.segmenter import Segmenter
from medseg.io import read_labels, write_labels
from medseg.networks.devices import precision_name
from medseg.plots.thumbnails import draw_thumbnail
from medseg.volume import Array, Volume

TASK = "segmenting"
"""The chore's name in progress events."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class OnItsWay(Generic[Value]):
    """A scan between two stages."""

    scan: Scan
    attempt: Attempt[Value]


@dataclass(frozen=True, slots=True)
class ReadScan:
    """A scan that was read.

    Attributes:
        content: Hash of its files.
        key: Of the result it will have.
        volume: Its voxels; ``None`` if nothing is to be done with them.
        kept: The entry of its earlier result, if that is still what it would be.
    """

    content: str
    key: str
    volume: Volume | None
    kept: Entry | None


@dataclass(frozen=True, slots=True)
class SegmentedScan:
    """A scan that was read, with what was found in it unless nothing is to be done.

    Attributes:
        read: The scan.
        labels: Its label indices ``(i, j, k)``, new or of an earlier result.
        found: What is new about it.
    """

    read: ReadScan
    labels: Array | None = None
    found: Segmentation | None = None


class ScanWork:
    """The three stages of a scan.

    Args:
        segmenter: Finds the labels.
        ledger: Of the folder of results, open.
        formats: Of the result files.
        total: How many scans there will be.
        pictures: Whether a picture for the report is drawn of each scan.
        error_maps: Whether a map of probable errors is written for each scan.
        resample_uneven: Whether DICOM slices at uneven distances are resampled, not refused.
        listeners: Told of progress and warnings, by the thread that works.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        ledger: Ledger,
        formats: Sequence[ResultFormat],
        *,
        total: int,
        pictures: bool,
        error_maps: bool = False,
        resample_uneven: bool = False,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._segmenter, self._spec = segmenter, segmenter.spec
        self._ledger, self._out = ledger, ledger.folder
        self._formats, self._pictures = formats, pictures
        self._error_maps = error_maps
        self._listeners, self._total, self._done = listeners, total, 0
        self._resample_uneven = resample_uneven
        self._bug: Exception | None = None
        self._bundle_hash = hash_bundle(segmenter.bundle)
        # What was asked for, not what `auto` came to: a batch may go on on another machine.
        self._options = [
            *(kind.name for kind in formats),
            *(f"{name}={value}" for name, value in segmenter.choices.items()),
            *(["resample-uneven"] if resample_uneven else []),
            *(["error map"] if error_maps else []),
        ]
        self._device = get_device_name(segmenter.device)
        self._arithmetic = f"{segmenter.backend} {precision_name(segmenter.precision)}"
        notify(listeners, Progress(TASK, 0, total))

    def read(self, scan: Scan) -> OnItsWay[ReadScan]:
        """Read a scan, unless its result is there already."""
        return OnItsWay(scan, Attempt(scan).then("read", self._read))

    def infer(self, one: OnItsWay[ReadScan]) -> OnItsWay[SegmentedScan]:
        """Find the labels of a scan."""
        return OnItsWay(one.scan, one.attempt.then("segment", self._segment))

    def finish(self, one: OnItsWay[SegmentedScan]) -> Entry:
        """Write a scan's result files and enter what became of it.

        Raises:
            OutputError: If the folder cannot be written to; the batch must end.
        """
        attempt = one.attempt.then("write", lambda found: self._write(one.scan, found))
        entry = attempt.settle(lambda error: self._failure(one.scan, error))
        if entry.state != "skipped":
            entry = entry.model_copy(update={"seconds": dict(attempt.seconds)})
            self._ledger.enter(entry)
        self._done += 1
        notify(self._listeners, Progress(TASK, self._done, self._total))
        return entry

    def refuse(self, fault: Fault) -> Entry:
        """Enter something that cannot even be tried."""
        entry = self._entry(fault.where, "failed", error=fault.what)
        self._ledger.enter(entry)
        return entry

    def raise_bug(self) -> None:
        """Raise the first bug met, if there was one, with its traceback."""
        if self._bug is not None:
            raise self._bug

    def _read(self, scan: Scan) -> ReadScan:
        check_kind(scan, self._spec)
        content = hash_scan(scan)
        key = result_key(content, self._bundle_hash, self._options)
        kept = self._kept(scan, content, key)
        if kept is not None and not self._lacks_picture(kept):
            return ReadScan(content, key, None, kept)
        volume = read_scan(scan, len(self._spec.channels), resample_uneven=self._resample_uneven)
        refuse_format(volume, self._formats)
        warnings = [*volume.warnings, *check_volume(volume, self._spec)]
        warnings = [discreet(warning, scan) for warning in warnings]
        # From here on errors call the volume what results call it.
        volume = replace(volume, source=scan.name, warnings=tuple(warnings))
        return ReadScan(content, key, volume, kept)

    def _kept(self, scan: Scan, content: str, key: str) -> Entry | None:
        """Return the entry of an earlier result that would come out the same."""
        entry = self._ledger.entries.get(scan.name)
        if entry is None or entry.state != "done":
            return None
        if entry.content != content:
            self._warn(scan, "has changed, or is another scan of this name; its result is replaced")
            return None
        if entry.key != key:
            return None
        if self._error_maps and not error_map_file(self._out, scan.name, self._spec).is_file():
            return None
        for name, digest in entry.files.items():
            file = self._out / name
            if not file.is_file():
                return None
            if _hash_result(file) != digest:
                self._warn(scan, f"{name} was changed since it was written; it is made anew")
                return None
        return entry

    def _warn(self, scan: Scan, what: str) -> None:
        notify(self._listeners, Notice(f"{scan.name}: {what}"))

    def _lacks_picture(self, entry: Entry) -> bool:
        """Tell whether a picture of an earlier result is wanted, absent, and can be drawn."""
        absent = not preview_file(self._out, entry.scan).is_file()
        return self._pictures and absent and bool(_label_maps(entry))

    def _segment(self, read: ReadScan) -> SegmentedScan:
        if read.volume is None:
            return SegmentedScan(read)
        if read.kept is not None:
            labels = read_labels(self._out / _label_maps(read.kept)[0]).array[0]
            return SegmentedScan(read, labels)
        found = self._segmenter.segment(read.volume, error_map=self._error_maps)
        return SegmentedScan(read, found.labels, found)

    def _write(self, scan: Scan, one: SegmentedScan) -> Entry:
        volume, found, kept = one.read.volume, one.found, one.read.kept
        if volume is not None and one.labels is not None:
            self._draw(scan, volume, one.labels)
        if kept is not None:
            return kept.model_copy(update={"state": "skipped"})
        if volume is None or found is None:
            raise TypeError("a scan that is not kept has been read and segmented")
        return self._entry(
            scan.name,
            "done",
            content=one.read.content,
            key=one.read.key,
            files=self._write_files(scan, volume, found),
            volumes_ml={name: round(ml, 4) for name, ml in found.volumes_ml.items()},
            quality=QualityEntry.of(found.quality),
            shape=volume.shape,
            spacing_mm=tuple(round(mm, 4) for mm in volume.spacing),
            warnings=(*volume.warnings, *found.warnings),
        )

    def _write_files(self, scan: Scan, volume: Volume, found: Segmentation) -> dict[str, str]:
        written = {}
        for kind in self._formats:
            file = self._out / f"{scan.name}{kind.ending}"
            kind.write(file, found.labels, volume, self._spec)
            written[file.name] = _hash_result(file)
        if found.error_map is not None:
            write_labels(error_map_file(self._out, scan.name, self._spec), found.error_map, volume)
        return written

    def _draw(self, scan: Scan, volume: Volume, labels: Array) -> None:
        file = preview_file(self._out, scan.name)
        if self._pictures:
            write_atomically(file, draw_thumbnail(volume, labels, self._spec.label_set))
        else:
            _remove(file)  # it would show an earlier result

    def _failure(self, scan: Scan, error: Exception) -> Entry:
        """Say why a scan has no result.

        Raises:
            OutputError: If it is not the scan's fault: the folder cannot be written to.
        """
        if is_of_the_folder(error):
            raise error
        warnings = self._stale(scan)
        if isinstance(error, MedsegError):
            what = discreet(str(error), scan)
            return self._entry(scan.name, "failed", error=what, warnings=warnings)
        if is_out_of_memory(error):
            what = (
                "there is not enough memory for this scan; close other programs, use a larger "
                "machine, or cut the scan to the part that matters"
            )
            return self._entry(scan.name, "failed", error=what, warnings=warnings)
        # Not its text, which may quote a header.
        what = (
            f"a bug in medseg ({type(error).__name__}), no fault of the scan; please report it "
            "with the traceback that the run ended with"
        )
        self._warn(scan, what)
        self._keep_bug(scan, error)
        return self._entry(scan.name, "error", error=what, warnings=warnings)

    def _keep_bug(self, scan: Scan, error: Exception) -> None:
        if self._bug is None:
            error.add_note(f"while working on {scan.name}; the other scans were finished")
            let_go(error)
            self._bug = error

    def _stale(self, scan: Scan) -> tuple[str, ...]:
        """Warn of files of an earlier result, which are kept: what failed now may be the disk."""
        earlier = self._ledger.entries.get(scan.name)
        files = [] if earlier is None else [f for f in earlier.files if (self._out / f).is_file()]
        if not files:
            return ()
        return (f"{', '.join(files)} is of an earlier run, and may be of another scan",)

    def _entry(self, scan: str, state: State, **facts: Any) -> Entry:
        return Entry(
            scan=scan,
            state=state,
            bundle=f"{self._spec.name} {self._spec.version}",
            bundle_hash=self._bundle_hash,
            medseg=version("medseg"),
            device=self._device,
            arithmetic=self._arithmetic,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            **facts,
        )


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {file.name}: {error.strerror}") from error


def _hash_result(file: Path) -> str:
    try:
        return hash_file(file)
    except OSError as error:
        raise OutputError(f"cannot read {file.name} again: {error.strerror}") from error


def _label_maps(entry: Entry) -> list[str]:
    """Return the result files that can be read as label maps."""
    return [name for name in entry.files if not name.endswith(".dcm")]
