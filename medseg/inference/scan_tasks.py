"""What a node of a cluster does for a batch: it segments one scan after the other.

Each process loads the bundle once. It reads the scan and writes result files itself, whole, into
the folder that all nodes share; the ledger is the driver's alone, which gets the entry.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from medseg._support.cluster_nodes import (
    await_sight,
    leave_broken_gpu,
    require_version,
)
from medseg._support.gpu_failures import is_gpu_failure
from medseg._support.optional_packages import forgo_engines
from medseg._support.ray_tasks import make_portable
from medseg._support.threads import limit_threads
from medseg.datasets.cases import Scan
from medseg.errors import MedsegError, OutputError
from medseg.events import Event
from medseg.inference.batch_state import read_state
from medseg.inference.ledger_entry import Entry
from medseg.inference.method import Method
from medseg.inference.pipeline import Stage, run_pipeline, segment_scan
from medseg.inference.result_files import choose_formats
from medseg.inference.scan_work import ResultOptions, ScanWork
from medseg.inference.segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class Loading:
    """How each process loads the bundle.

    Attributes:
        bundle: Its path, as all nodes see it.
        bundle_hash: Of the bundle that the driver means.
        device: ``cpu``, or ``cuda`` for the GPU that the task was given.
        choices: What else ``Segmenter`` takes.
        threads: Of arithmetic.
        medseg: The driver's version of medseg.
    """

    bundle: str
    bundle_hash: str
    device: str
    choices: tuple[tuple[str, Any], ...]
    threads: int
    medseg: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """What is the same for all scans of a batch.

    Attributes:
        loading: How the bundle is loaded.
        root: Where the scans were looked for, as all nodes see it.
        out: The folder of results, as all nodes see it.
        state: The folder in it with the state of this batch.
        began: What that state says.
        formats: Of the result files.
        options: What else is wanted of results.
    """

    loading: Loading
    root: str
    out: str
    state: str
    began: str
    formats: tuple[str, ...]
    options: ResultOptions


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a node says of a scan.

    Attributes:
        entry: For the ledger.
        seconds: Stage → how long it took.
        events: For the driver's listeners.
        full_error: What is wrong with the scan, for the caller alone.
        bug: The bug that it met.
        is_unseen: Whether a file of the scan is not there.
    """

    entry: Entry
    seconds: Mapping[str, float]
    events: tuple[Event, ...] = ()
    full_error: str = ""
    bug: Exception | None = None
    is_unseen: bool = False


def describe_method(loading: Loading) -> Method | MedsegError:
    """Load the bundle; return what results are made with, or why that cannot be."""
    try:
        with limit_threads(loading.threads):
            return _load(loading)[1]
    except MedsegError as error:
        return error


def segment_on_node(
    assignment: Assignment, scan: Scan, earlier: Entry | None
) -> ScanResult | MedsegError:
    """Segment one scan, unless its earlier result is still valid.

    Args:
        assignment: The batch.
        scan: The scan, by its absolute paths.
        earlier: Its entry in the ledger so far.

    Returns:
        What became of it; or what ends the batch.
    """
    try:
        with limit_threads(assignment.loading.threads):
            segmenter, method = _load(assignment.loading)
            _check_disks(assignment)
            result = _segment(assignment, segmenter, method, scan, earlier)
            if not result.entry.is_failed or _sees(scan):
                return result
            # The driver saw them: they may have come a moment ago, or lie on its own disk.
            if not await_sight(partial(_sees, scan)):
                return replace(result, is_unseen=True)
            return _segment(assignment, segmenter, method, scan, earlier)
    except Exception as error:
        if is_gpu_failure(error):
            leave_broken_gpu()
        if isinstance(error, MedsegError):
            return error
        raise


def _sees(scan: Scan) -> bool:
    """Tell whether all files of a scan are there."""
    return all(file.exists() for file in scan.files)


def _segment(
    assignment: Assignment,
    segmenter: Segmenter,
    method: Method,
    scan: Scan,
    earlier: Entry | None,
) -> ScanResult:
    told: list[Event] = []

    def tell(event: Event) -> None:
        told.append(event)

    work = ScanWork(
        method,
        Path(assignment.out),
        {} if earlier is None else {scan.name: earlier},
        choose_formats(assignment.formats, method.spec),
        assignment.options,
        [tell],
    )

    def on_error(scan: Scan, stage: Stage, error: Exception) -> Entry:
        if is_gpu_failure(error):
            raise error
        return work.on_error(scan, stage, error)

    ((entry, seconds),) = run_pipeline(
        [scan],
        read=work.read,
        segment=partial(
            segment_scan, segmenter._predictor, assignment.options.error_maps
        ),
        write=work.write,
        on_error=on_error,
        record=lambda entry, seconds: (entry, dict(seconds)),
    )
    portable = None if work.bug is None else make_portable(work.bug)
    return ScanResult(
        entry=entry,
        seconds=seconds,
        events=tuple(told),
        full_error=work.full_errors.get(scan.name, ""),
        bug=portable,
    )


@lru_cache(maxsize=1)
def _load(loading: Loading) -> tuple[Segmenter, Method]:
    """Load the bundle, once in each process.

    Raises:
        MedsegError: As ``Segmenter``; or if medseg, or the bundle, is another one here.
    """
    require_version(loading.medseg)
    if not Path(loading.bundle).exists():
        raise MedsegError(
            "a node of the cluster does not see the bundle; put it on a disk that all nodes share, "
            "at the same path",
            source=loading.bundle,
        )
    forgo_engines()
    segmenter = Segmenter(
        loading.bundle, loading.device, **dict(loading.choices)
    )
    method = Method.of(segmenter)
    if method.bundle_hash != loading.bundle_hash:
        raise MedsegError(
            "the bundle is another one on a node of the cluster, or was changed meanwhile; put it "
            "on a disk that all nodes share",
            source=loading.bundle,
        )
    return segmenter, method


def _check_disks(assignment: Assignment) -> None:
    """Make sure before each scan that this node sees what the driver sees: disks come and go.

    Raises:
        MedsegError: If the scans are not there.
        OutputError: If the folder of results is not the driver's.
    """
    if not Path(assignment.root).exists():
        raise MedsegError(
            "a node of the cluster does not see the scans; they must lie on a disk that all nodes "
            "share, at the same path",
            source=assignment.root,
        )
    if not await_sight(partial(_sees_batch, assignment)):
        raise OutputError(
            "a node of the cluster does not see the folder of results as this machine does; it "
            "must lie on a disk that all nodes share, at the same path",
            source=assignment.out,
        )


def _sees_batch(assignment: Assignment) -> bool:
    with contextlib.suppress(OutputError):
        state = read_state(Path(assignment.state))
        return state is not None and state.began == assignment.began
    return False
