"""A batch: what is done to each of its scans, and how its end is entered into the ledger.

A fault of the scan ends that scan alone and says what to do. A bug ends that scan, too, is
entered as an error and raised when the batch is over. A folder that can no longer be written to
ends the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from medseg._support.gpu_failures import is_gpu_failure
from medseg.datasets.cases import Scan
from medseg.datasets.scan_candidates import LeftOut
from medseg.errors import Fault
from medseg.events import Listener, Progress, ScanDone, notify
from medseg.inference.ledger import Ledger
from medseg.inference.ledger_entry import Entry
from medseg.inference.method import Method
from medseg.inference.pipeline import Stage
from medseg.inference.result_files import ResultFormat
from medseg.inference.scan_work import ResultOptions, ScanWork

GONE = "failed before, and is not there any more"
"""Why a scan is skipped whose files were taken away."""

TASK = "segmenting"
"""The task's name in progress events."""


class ScanBatch(ScanWork):
    """Works on the scans of a batch, and keeps the ledger.

    Args:
        method: What the results are made with.
        ledger: Of the folder of results, open.
        formats: Of the result files, by name.
        options: What else is wanted of results.
        total: How many scans there will be.
        listeners: Told of progress and warnings, by the thread that works.

    Attributes:
        ledger: The ledger.
        note: What else is told with progress, such as how many machines work.
    """

    def __init__(
        self,
        method: Method,
        ledger: Ledger,
        formats: Mapping[str, ResultFormat],
        options: ResultOptions,
        *,
        total: int,
        listeners: Sequence[Listener] = (),
    ) -> None:
        super().__init__(
            method, ledger.folder, ledger.entries, formats, options, listeners
        )
        self.ledger = ledger
        self._total = total
        self._done = 0
        self.note = ""
        notify(listeners, Progress(TASK, 0, total))

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
        entry = super().on_error(scan, stage, error)
        if is_gpu_failure(error):
            with self._lock:
                self.ledger.enter(entry)
            raise error
        return entry

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
                entry = self.ledger.enter(entry)
            self._done += 1
            self._tell(entry)
            notify(
                self._listeners,
                Progress(TASK, self._done, self._total, self.note),
            )
        return entry

    def refuse(self, fault: Fault) -> Entry:
        """Enter something that cannot even be tried."""
        failed = self.make_entry(fault.where, "failed", error=fault.what)
        entry = self.ledger.enter(failed)
        self._tell(entry)
        return entry

    def skip(self, scans: Iterable[LeftOut]) -> list[Entry]:
        """Enter scans that were not asked for, unless the ledger says so or has their result."""
        skipped = []
        for scan in scans:
            entry = self.make_entry(scan.name, "skipped", reason=scan.reason)
            earlier = self.ledger.entries.get(scan.name)
            has_result = earlier is not None and earlier.is_good
            is_known = earlier is not None and earlier.reason == scan.reason
            if not has_result and not is_known:
                entry = self.ledger.enter(entry)
            self._tell(entry)
            skipped.append(entry)
        return skipped

    def close_failures(
        self, gone: Iterable[str], holds: Callable[[str], bool]
    ) -> None:
        """Enter that failed scans of earlier calls are gone, so that no report names them for ever.

        Args:
            gone: What the ledger knows and this call did not find. What another call found
                elsewhere stays as it is.
            holds: Tells whether a scan of this name would be of this call.
        """
        for scan in gone:
            entry = self.ledger.entries[scan]
            is_own = entry.is_failed and holds(scan)
            if is_own and entry.searched == self.options.searched:
                self.ledger.enter(
                    self.make_entry(entry.scan, "skipped", reason=GONE)
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
        if self.bug is not None:
            raise self.bug
