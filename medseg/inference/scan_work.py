"""What is done to one scan of a batch: read, written, or why it has no result.

Nothing here enters anything into a ledger, so that it may run in another process, or on another
machine, than the batch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from medseg._support.gpu_failures import is_gpu_failure
from medseg.datasets.cases import Scan
from medseg.datasets.input_checks import admit, check_kind
from medseg.datasets.integrity import read_scan
from medseg.events import Listener, Notice, notify
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
from medseg.inference.ledger_entry import Entry, QualityEntry, State
from medseg.inference.method import Method
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
from medseg.inference.written_files import Step, WrittenFiles, write_files
from medseg.io import read_labels, write_labels
from medseg.volume import Array, Volume


@dataclass(frozen=True, slots=True)
class ResultOptions:
    """What a person wants of each result, and of reading its scan.

    Attributes:
        pictures: Whether a picture for the report is drawn.
        error_maps: Whether a map of probable errors is written.
        resample_uneven: Whether DICOM slices at uneven distances are resampled, not refused.
        searched: Hash of where the scans were looked for.
    """

    pictures: bool
    error_maps: bool = False
    resample_uneven: bool = False
    searched: str = ""


class ScanWork:
    """Reads scans and writes their results.

    Args:
        method: What the results are made with.
        out: The folder of results.
        earlier: Scan → its entry in the ledger so far.
        formats: Of the result files, by name.
        options: What else is wanted.
        listeners: Told of warnings, by the thread that works.

    Attributes:
        out: The folder of results.
        formats: Of the result files, by name.
        options: What else is wanted.
        full_errors: Scan → what is wrong with it, with file names and texts of headers: for the
            caller, in no result.
        bug: The first bug met, with its traceback.
    """

    def __init__(
        self,
        method: Method,
        out: Path,
        earlier: Mapping[str, Entry],
        formats: Mapping[str, ResultFormat],
        options: ResultOptions,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._method = method
        self._spec = method.spec
        self.out = out
        self._earlier = EarlierResults(out, earlier, listeners)
        self.formats = formats
        self.options = options
        self._listeners = listeners
        # Several threads write where there are several GPUs, or one is fast.
        self._lock = threading.Lock()
        self.full_errors: dict[str, str] = {}
        self.bug: Exception | None = None
        # What was asked for, not what `auto` came to: a batch may go on on another machine.
        self._asked_for = list(formats)
        self._asked_for += [
            f"{name}={value}" for name, value in method.choices.items()
        ]
        if options.resample_uneven:
            self._asked_for.append("resample-uneven")
        if options.error_maps:
            self._asked_for.append("error map")

    def read(self, scan: Scan) -> OpenScan:
        """Read a scan, unless its earlier result is still valid.

        Raises:
            ScanError: If it cannot be read, or does not suit the bundle or a result format.
        """
        check_kind(scan, self._spec)
        content = hash_scan(scan)
        key = make_result_key(
            content, self._method.bundle_hash, self._asked_for
        )
        kept = self._earlier.find(
            scan, content, key, self._list_further_files(scan)
        )
        if kept is None:
            volume = self._read_volume(scan)
            missing = find_missing_formats(volume, self.formats)
            return OpenScan(scan, content, key, volume, missing)
        label_map = find_label_map(kept)
        if label_map is None or not self._lacks_picture(scan):
            return OpenScan(scan, content, key, None, kept=kept)
        labels = read_labels(self.out / label_map)
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
        entry = self.make_entry(
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
        """
        if concerns_output_folder(error):
            raise error
        what = describe_error(error)
        if is_gpu_failure(error):
            return self.make_entry(scan.name, "error", error=what)
        state: State = "failed"
        if is_bug(error):
            state = "error"
            self._report_bug(scan, stage, error)
        else:
            self.full_errors[scan.name] = describe_to_caller(error, scan.files)
        warnings = self._earlier.warn_of_stale(scan)
        return self.make_entry(scan.name, state, error=what, warnings=warnings)

    def make_entry(self, scan: str, state: State, **facts: Any) -> Entry:
        """Make the ledger's entry of a scan, as of now."""
        searched = self.options.searched
        return self._method.make_entry(scan, state, searched=searched, **facts)

    def _list_further_files(self, scan: Scan) -> list[Path]:
        """Return the files of a result that the ledger does not list."""
        if not self.options.error_maps:
            return []
        return [get_error_map_path(self.out, scan.name, self._spec)]

    def _read_volume(self, scan: Scan) -> Volume:
        channels = self._spec.channels
        volume = read_scan(
            scan, channels, resample_uneven=self.options.resample_uneven
        )
        admitted = admit(volume, self._spec)
        # From here on the volume is called what results call it.
        return replace(admitted, source=scan.name)

    def _lacks_picture(self, scan: Scan) -> bool:
        return (
            self.options.pictures
            and not get_preview_path(self.out, scan.name).is_file()
        )

    def _write_files(
        self, opened: OpenScan, volume: Volume, segmentation: Segmentation
    ) -> WrittenFiles:
        scan = opened.scan
        steps: dict[str, Step] = {}
        for name, kind in self.formats.items():
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
        file = self.out / f"{scan.name}{kind.ending}"
        kind.write(file, labels, volume, self._spec)
        return {file.name: hash_result(file)}

    def _write_error_map(
        self, scan: Scan, volume: Volume, error_map: Array
    ) -> dict[str, str]:
        file = get_error_map_path(self.out, scan.name, self._spec)
        write_labels(file, error_map, volume)
        return {}

    def _warn_of_stale(
        self, scan: Scan, missing: Iterable[str]
    ) -> tuple[str, ...]:
        """Warn of earlier files of formats that the scan has none of this time."""
        formats = [name for name in missing if name in self.formats]
        endings = [self.formats[name].ending for name in formats]
        files = [f"{scan.name}{ending}" for ending in endings]
        return self._earlier.warn_of_stale(scan, files)

    def _draw(self, scan: Scan, volume: Volume, labels: Array) -> None:
        file = get_preview_path(self.out, scan.name)
        if self.options.pictures:
            draw_picture(file, volume, labels, self._spec.label_set)
        else:
            remove_picture(file)  # it would show an earlier result

    def _report_bug(self, scan: Scan, stage: Stage, error: Exception) -> None:
        what = describe_error(error)
        with self._lock:
            notify(self._listeners, Notice(f"{scan.name}: {what}"))
            if self.bug is not None:
                return
            error.add_note(
                f"in stage '{stage}' of {scan.name}; the other scans were finished"
            )
            clear_frames(error)
            self.bug = error
