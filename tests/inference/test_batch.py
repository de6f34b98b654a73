"""A bug is no bad scan, no memory is no bug, and a lost folder is no fault of any scan."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.killed_batches import write_scans

from medseg.datasets.scans import find_scans
from medseg.errors import MedsegError, OutputError
from medseg.events import Event, Notice
from medseg.inference.batch import ScanBatch
from medseg.inference.ledger import open_ledger
from medseg.inference.ledger_entry import Entry
from medseg.inference.method import Method
from medseg.inference.open_scan import OpenScan, SegmentedScan
from medseg.inference.pipeline import run_pipeline
from medseg.inference.result_files import RESULT_FORMATS
from medseg.inference.scan_work import ResultOptions
from medseg.inference.segmentation import Segmentation
from medseg.inference.segmenter import Segmenter
from medseg.volume import Volume

SEEN: list[weakref.ref[Any]] = []
"""The voxels that the network was given, as long as somebody holds them."""


class Flawed(Segmenter):
    """A segmenter that meets an error in some scans."""

    def __init__(self, bundle: Path, errors: dict[str, Exception]) -> None:
        super().__init__(bundle, "cpu")
        self.errors = errors
        SEEN.clear()

    def segment(
        self, volume: Volume, *, error_map: bool = False
    ) -> Segmentation:
        SEEN.append(weakref.ref(volume.array))
        if volume.source in self.errors:
            raise self.errors[volume.source]
        return super().segment(volume, error_map=error_map)


Run = Callable[..., tuple[list[Entry], ScanBatch]]


@pytest.fixture
def run(untrained_bundle: Callable[..., Path], tmp_path: Path) -> Run:
    torch.set_num_threads(1)
    scans = find_scans(write_scans(tmp_path / "scans", 4), 1).scans

    def run_batch(
        errors: dict[str, Exception], listeners=(), out: Path = tmp_path / "out"
    ):
        segmenter = Flawed(untrained_bundle(), errors)
        with open_ledger(out) as ledger:
            work = ScanBatch(
                Method.of(segmenter),
                ledger,
                {"nifti": RESULT_FORMATS.get("nifti")},
                ResultOptions(pictures=False),
                total=len(scans),
                listeners=listeners,
            )

            def segment(opened: OpenScan) -> SegmentedScan:
                segmentation = segmenter.segment(opened.volume)
                return SegmentedScan(opened, lambda: segmentation)

            entries = run_pipeline(
                scans,
                read=work.read,
                segment=segment,
                write=work.write,
                on_error=work.on_error,
                record=work.record,
            )
        return entries, work

    return run_batch


def test_a_bug_is_entered_as_an_error_and_raised_when_all_others_are_done(
    run: Run,
) -> None:
    told: list[Event] = []
    bug = ZeroDivisionError("Qwertz^Zaphod")
    entries, work = run(
        {"scan_01": bug, "scan_02": KeyError("x")}, [told.append]
    )
    assert [entry.state for entry in entries] == [
        "done",
        "error",
        "error",
        "done",
    ]
    assert (
        "this is a bug in medseg (ZeroDivisionError), not a fault of the scan"
        in entries[1].error
    )
    assert "Qwertz" not in entries[1].model_dump_json()
    with pytest.raises(ZeroDivisionError) as raised:
        work.raise_bug()
    assert raised.value is bug
    assert "in stage 'segment' of scan_01" in raised.value.__notes__[0]
    assert any(frame.name == "segment" for frame in raised.traceback)
    said = [event.message for event in told if isinstance(event, Notice)]
    assert [message.partition(":")[0] for message in said] == [
        "scan_01",
        "scan_02",
    ]


def test_a_bug_does_not_keep_its_scan_in_memory(run: Run) -> None:
    _, work = run({"scan_00": ZeroDivisionError("bug")})
    gc.collect()
    assert len(SEEN) == 4
    assert [array() is None for array in SEEN] == [True] * 4
    with pytest.raises(ZeroDivisionError):
        work.raise_bug()


def test_nothing_is_raised_without_a_bug(run: Run) -> None:
    entries, work = run(
        {"scan_00": MedsegError("the device is too small; try --device cpu")}
    )
    assert [entry.state for entry in entries] == [
        "failed",
        "done",
        "done",
        "done",
    ]
    assert entries[0].error == "the device is too small; try --device cpu"
    work.raise_bug()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
)
def test_too_little_memory_is_told_with_what_to_do(
    error: Exception, run: Run
) -> None:
    entries, work = run({"scan_03": error})
    assert entries[3].state == "failed"
    assert "not enough memory for this scan; " in entries[3].error
    work.raise_bug()


def test_a_real_lack_of_memory_fails_its_scan(run: Run) -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 50, dtype=torch.uint8)
    entries, work = run({"scan_00": raised.value})
    assert [entry.state for entry in entries] == [
        "failed",
        "done",
        "done",
        "done",
    ]
    work.raise_bug()


def test_a_result_that_does_not_fit_its_format_fails_one_scan(run: Run) -> None:
    entries, _ = run(
        {"scan_00": OutputError("the affine is too large for a NIfTI header")}
    )
    assert [entry.state for entry in entries] == [
        "failed",
        "done",
        "done",
        "done",
    ]


def test_a_target_that_is_a_folder_fails_one_scan(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "out/scan_02.nii.gz/inside").mkdir(parents=True)
    entries, _ = run({})
    assert [entry.state for entry in entries] == [
        "done",
        "done",
        "failed",
        "done",
    ]
    assert "cannot write this file" in entries[2].error
    assert str(tmp_path) not in entries[2].error


def test_a_full_disk_is_no_fault_of_a_scan(run: Run, small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(50_000))
    with pytest.raises(OutputError, match="No space left on device"):
        run({}, out=small_disk)
