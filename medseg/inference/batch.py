"""What is done to each scan of a batch, and how its end is entered into the ledger.

A fault of the scan ends that scan alone and says what to do. A bug ends that scan, too, is
entered as an error and raised when the batch is over. A folder that can no longer be written to
ends the batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medseg._support.gpu_failures import is_gpu_failure
from medseg._support.provenance import get_device_name
from medseg.bundle.hashes import hash_bundle
from medseg.datasets.cases import Scan
from medseg.datasets.input_checks import admit, check_kind
from medseg.datasets.integrity import read_scan
from medseg.datasets.scan_candidates import LeftOut
from medseg.errors import Fault
from medseg.events import Listener, Notice, Progress, ScanDone, notify
from medseg.inference.earlier_results import (
    EarlierResults,
    find_label_map,
    hash_result,
)
from medseg.inference.failures import (
    clear_frames,
    concerns_output_folder,
    describe_error,
    describe_to_caller,
    is_bug,
)
from medseg.inference.hashes import hash_scan, make_result_key
from medseg.inference.ledger import Ledger
from medseg.inference.ledger_entry import Entry, QualityEntry, State
from medseg.inference.open_scan import OpenScan, SegmentedScan
from medseg.inference.pictures import draw_picture, remove_picture
from medseg.inference.pipeline import Stage
from medseg.inference.report_rows import get_preview_path
from medseg.inference.result_files import (
    ResultFormat,
    find_missing_formats,
    get_error_map_path,
)
from medseg.inference.segmentation import Segmentation
from medseg.inference.segmenter import Segmenter
from medseg.inference.written_files import Step, WrittenFiles, write_files
from medseg.io import read_labels, write_labels
from medseg.volume import Array, Volume

GONE = "failed before, and is not there any more"
"""Why a scan is skipped whose files were taken away."""

TASK = "segmenting"
"""The task's name in progress events."""


class ScanBatch:
    """Reads the scans of a batch, writes their results, and keeps the ledger.

    Args:
        segmenter: What the results are made with.
        ledger: Of the folder of results, open.
        formats: Of the result files, by name.
        total: How many scans there will be.
        pictures: Whether a picture for the report is drawn of each scan.
        error_maps: Whether a map of probable errors is written for each scan.
        resample_uneven: Whether DICOM slices at uneven distances are resampled, not refused.
        searched: Hash of where the scans were looked for.
        listeners: Told of progress and warnings, by the thread that works.

    Attributes:
        full_errors: Scan → what is wrong with it, with file names and texts of headers: for the
            caller, in no result.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        ledger: Ledger,
        formats: Mapping[str, ResultFormat],
        *,
        total: int,
        pictures: bool,
        error_maps: bool = False,
        resample_uneven: bool = False,
        searched: str = "",
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._spec = segmenter.spec
        self._ledger = ledger
        self._out = ledger.folder
        self._earlier = EarlierResults(ledger, listeners)
        self._formats = formats
        self._pictures = pictures
        self._error_maps = error_maps
        self._resample_uneven = resample_uneven
        self._searched = searched
        self._listeners = listeners
        self._total = total
        self._done = 0
        self._bug: Exception | None = None
        # Several threads write where there are several GPUs, or one is fast.
        self._lock = threading.Lock()
        self.full_errors: dict[str, str] = {}
        self._bundle_hash = hash_bundle(segmenter.bundle)
        # What was asked for, not what `auto` came to: a batch may go on on another machine.
        self._options = list(formats)
        self._options += [
            f"{name}={value}" for name, value in segmenter.choices.items()
        ]
        if resample_uneven:
            self._options.append("resample-uneven")
        if error_maps:
            self._options.append("error map")
        self._device = get_device_name(segmenter.device)
        self._arithmetic = segmenter.arithmetic
        notify(listeners, Progress(TASK, 0, total))

    def read(self, scan: Scan) -> OpenScan:
        """Read a scan, unless its earlier result is still valid.

        Raises:
            ScanError: If it cannot be read, or does not suit the bundle or a result format.
        """
        check_kind(scan, self._spec)
        content = hash_scan(scan)
        key = make_result_key(content, self._bundle_hash, self._options)
        kept = self._earlier.find(
            scan, content, key, self._list_further_files(scan)
        )
        if kept is None:
            volume = self._read_volume(scan)
            missing = find_missing_formats(volume, self._formats)
            return OpenScan(scan, content, key, volume, missing)
        label_map = find_label_map(kept)
        if label_map is None or not self._lacks_picture(scan):
            return OpenScan(scan, content, key, None, kept=kept)
        labels = read_labels(self._out / label_map)
        volume = self._read_volume(scan)
        return OpenScan(
            scan,
            content,
            key,
            volume,
            kept=kept,
            kept_labels=labels.array[0],
        )

    def write(self, segmented: SegmentedScan) -> Entry:
        """Write a scan's result files; return its entry for the ledger.

        A format that fails never loses the others: the entry lists what was written.

        Raises:
            OutputError: If no file can be written, or the folder no longer takes any.
        """
        opened = segmented.opened
        scan, volume, kept = opened.scan, opened.volume, opened.kept
        if kept is not None:
            if volume is not None and opened.kept_labels is not None:
                self._draw(scan, volume, opened.kept_labels)
            return kept.model_copy(update={"state": "skipped"})
        if volume is None or segmented.finish is None:
            raise TypeError(
                "a scan without an earlier result has been read and segmented"
            )
        segmentation = segmented.finish()
        self._draw(scan, volume, segmentation.labels)
        written = self._write_files(opened, volume, segmentation)
        volumes_ml = {
            name: round(ml, 4) for name, ml in segmentation.volumes_ml.items()
        }
        spacing_mm = [round(mm, 4) for mm in volume.spacing]
        entry = self._make_entry(
            scan.name,
            "done",
            content=opened.content,
            key="" if written.may_come else opened.key,
            files=written.hashes,
            missing=written.missing,
            volumes_ml=volumes_ml,
            quality=QualityEntry.from_quality(segmentation.quality),
            shape=volume.shape,
            spacing_mm=tuple(spacing_mm),
            warnings=(
                *segmentation.warnings,
                *self._warn_of_stale(scan, written.missing),
            ),
        )
        if not segmented.device:
            return entry
        return entry.model_copy(update={"device": segmented.device})

    def on_error(self, scan: Scan, stage: Stage, error: Exception) -> Entry:
        """Say why a scan has no result.

        Args:
            scan: The scan.
            stage: Where it failed.
            error: What was raised.

        Raises:
            OutputError: If it is not the scan's fault: the folder cannot be written to.
            MedsegError: If the GPU failed; the scan is entered as one that had an error.
        """
        if concerns_output_folder(error):
            raise error
        what = describe_error(error)
        if is_gpu_failure(error):
            lost = self._make_entry(scan.name, "error", error=what)
            with self._lock:
                self._ledger.enter(lost)
            raise error
        state: State = "failed"
        if is_bug(error):
            state = "error"
            self._report_bug(scan, stage, error)
        else:
            self.full_errors[scan.name] = describe_to_caller(error, scan.files)
        warnings = self._earlier.warn_of_stale(scan)
        return self._make_entry(scan.name, state, error=what, warnings=warnings)

    def record(self, entry: Entry, seconds: Mapping[str, float]) -> Entry:
        """Enter what became of a scan into the ledger, with how long each stage took.

        Raises:
            OutputError: If the folder cannot be written to; the batch must end.
        """
        is_new = entry.state != "skipped"
        if is_new:
            entry = entry.model_copy(update={"seconds": dict(seconds)})
        with self._lock:
            if is_new:
                self._ledger.enter(entry)
            self._done += 1
            self._tell(entry)
            notify(self._listeners, Progress(TASK, self._done, self._total))
        return entry

    def refuse(self, fault: Fault) -> Entry:
        """Enter something that cannot even be tried."""
        entry = self._make_entry(fault.where, "failed", error=fault.what)
        self._ledger.enter(entry)
        self._tell(entry)
        return entry

    def skip(self, scans: Iterable[LeftOut]) -> list[Entry]:
        """Enter scans that were not asked for, unless the ledger says so or has their result."""
        skipped = []
        for scan in scans:
            entry = self._make_entry(scan.name, "skipped", reason=scan.reason)
            earlier = self._ledger.entries.get(scan.name)
            has_result = earlier is not None and earlier.is_good
            is_known = earlier is not None and earlier.reason == scan.reason
            if not has_result and not is_known:
                self._ledger.enter(entry)
            self._tell(entry)
            skipped.append(entry)
        return skipped

    def close_failures(
        self, here: Collection[str], holds: Callable[[str], bool]
    ) -> None:
        """Enter that failed scans of earlier calls are gone, so that no report names them for ever.

        Args:
            here: Every name of this call. What another call found elsewhere stays as it is.
            holds: Tells whether a scan of this name would be of this call.
        """
        for entry in tuple(self._ledger.entries.values()):
            is_gone = entry.is_failed and entry.scan not in here
            is_gone = is_gone and holds(entry.scan)
            if is_gone and entry.searched == self._searched:
                self._ledger.enter(
                    self._make_entry(entry.scan, "skipped", reason=GONE)
                )

    def _tell(self, entry: Entry) -> None:
        """Tell listeners what became of a scan."""
        what = entry.error or entry.reason or "; ".join(entry.remarks)
        seconds = None
        if entry.state == "done":
            seconds = sum(entry.seconds.values())
        elif entry.is_good:
            what = "unchanged, and its result is kept"
        event = ScanDone(entry.scan, entry.state, what, seconds)
        notify(self._listeners, event)

    def raise_bug(self) -> None:
        """Raise the first bug met, if there was one, with its traceback."""
        if self._bug is not None:
            raise self._bug

    def _list_further_files(self, scan: Scan) -> list[Path]:
        """Return the files of a result that the ledger does not list."""
        if not self._error_maps:
            return []
        return [get_error_map_path(self._out, scan.name, self._spec)]

    def _read_volume(self, scan: Scan) -> Volume:
        channels = self._spec.channels
        volume = read_scan(
            scan, channels, resample_uneven=self._resample_uneven
        )
        admitted = admit(volume, self._spec)
        # From here on the volume is called what results call it.
        return replace(admitted, source=scan.name)

    def _lacks_picture(self, scan: Scan) -> bool:
        return (
            self._pictures
            and not get_preview_path(self._out, scan.name).is_file()
        )

    def _write_files(
        self, opened: OpenScan, volume: Volume, segmentation: Segmentation
    ) -> WrittenFiles:
        scan = opened.scan
        steps: dict[str, Step] = {}
        for name, kind in self._formats.items():
            if name not in opened.missing:
                steps[name] = partial(
                    self._write_format, kind, scan, volume, segmentation.labels
                )
        if segmentation.error_map is not None:
            steps["error map"] = partial(
                self._write_error_map, scan, volume, segmentation.error_map
            )
        written = write_files(steps, opened.missing)
        for error in written.bugs:
            self._report_bug(scan, "write", error)
        return written

    def _write_format(
        self, kind: ResultFormat, scan: Scan, volume: Volume, labels: Array
    ) -> dict[str, str]:
        file = self._out / f"{scan.name}{kind.ending}"
        kind.write(file, labels, volume, self._spec)
        return {file.name: hash_result(file)}

    def _write_error_map(
        self, scan: Scan, volume: Volume, error_map: Array
    ) -> dict[str, str]:
        file = get_error_map_path(self._out, scan.name, self._spec)
        write_labels(file, error_map, volume)
        return {}

    def _warn_of_stale(
        self, scan: Scan, missing: Iterable[str]
    ) -> tuple[str, ...]:
        """Warn of earlier files of formats that the scan has none of this time."""
        formats = [name for name in missing if name in self._formats]
        endings = [self._formats[name].ending for name in formats]
        files = [f"{scan.name}{ending}" for ending in endings]
        return self._earlier.warn_of_stale(scan, files)

    def _draw(self, scan: Scan, volume: Volume, labels: Array) -> None:
        file = get_preview_path(self._out, scan.name)
        if self._pictures:
            draw_picture(file, volume, labels, self._spec.label_set)
        else:
            remove_picture(file)  # it would show an earlier result

    def _report_bug(self, scan: Scan, stage: Stage, error: Exception) -> None:
        what = describe_error(error)
        with self._lock:
            notify(self._listeners, Notice(f"{scan.name}: {what}"))
            if self._bug is not None:
                return
            error.add_note(
                f"in stage '{stage}' of {scan.name}; the other scans were finished"
            )
            clear_frames(error)
            self._bug = error

    def _make_entry(self, scan: str, state: State, **facts: Any) -> Entry:
        return Entry(
            scan=scan,
            state=state,
            bundle=f"{self._spec.name} {self._spec.version}",
            origin=self._spec.origin or "",
            bundle_hash=self._bundle_hash,
            medseg=version("medseg"),
            device=self._device,
            arithmetic=self._arithmetic,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            searched=self._searched,
            **facts,
        )
