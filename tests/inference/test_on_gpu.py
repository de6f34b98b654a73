"""Segmenting on a GPU, a pretend one: the CPU's labels, and a memory that runs out anywhere."""

from __future__ import annotations

import gc
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.assemblies import make_scan, write_thorax
from support.bundles import NESTED
from support.killed_batches import write_scans
from support.pretend_gpu import pretend_gpus

from medseg import MedsegError, Segmenter, segment
from medseg.inference import host_writer
from medseg.inference.accumulator import count_bytes_held
from medseg.inference.failures import clear_frames
from medseg.inference.label_writer import LabelWriter
from medseg.inference.sliding_window_pass import SlidingWindowPass
from medseg.preprocessing import plane_reader, resampling
from medseg.preprocessing.grid_map import GridMap
from medseg.volume import Volume

GPU = torch.device("cuda")
CUDNN = RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling")


def scan(depth: int = 40) -> Volume:
    voxels = np.random.default_rng(0).normal(0, 100, (1, 20, 18, depth))
    affine = np.diag([-1.5, 1.5, 2.0, 1.0])
    return Volume(voxels.astype(np.float32), affine, source="scan")


@pytest.fixture
def bundle(untrained_bundle: Callable[..., Path]) -> Path:
    return untrained_bundle(inference={"batch_size": 8})


@pytest.fixture
def wanted(bundle: Path) -> Any:
    return Segmenter(bundle, "cpu").segment(scan()).labels


def on_gpu(bundle: Path, **choices: Any) -> Segmenter:
    return Segmenter(bundle, "cuda", precision="fp32", **choices)


@pytest.mark.parametrize("room", [1 << 30, 50_000, 0])
def test_labels_are_those_of_the_cpu_wherever_image_and_scores_lie(
    bundle: Path, wanted: Any, room: int
) -> None:
    with pretend_gpus() as gpus:
        found = on_gpu(bundle, gpu_memory=room).segment(scan())
        assert gpus.launches > 100
    assert np.array_equal(found.labels, wanted)
    assert not found.warnings


def test_what_cuda_refuses_is_refused() -> None:
    with pretend_gpus() as gpus:
        there = torch.ones(3, device="cuda")
        with pytest.raises(RuntimeError, match="to be on the same device"):
            there + torch.ones(3)
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            there.numpy()
        assert gpus.live == 3 * 4
        assert not gpus.waits
        assert (there + 1).cpu().tolist() == [2, 2, 2]
        assert sum(gpus.waits.values()) == 1
        del there
        assert gpus.live == 0


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("Accumulator.add", None),
        ("LabelWriter._find_winners", None),
        ("ConfidenceAccumulator._add_planes", CUBLAS),
        ("NetworkInput.resample", None),
        ("NetworkInput.normalise", None),
        ("SlidingWindowPass.cut", CUDNN),
    ],
)
def test_a_second_try_in_the_hosts_memory_has_all_of_the_gpus(
    bundle: Path, wanted: Any, where: str, error: Exception | None
) -> None:
    with pretend_gpus() as gpus:
        segmenter = on_gpu(bundle)
        loaded = gpus.live
        segmenter._predictor.sliding_window.batch_size = 1
        gpus.fail(where, error)
        found = segmenter.segment(scan())
        assert gpus.at_retry == [loaded]
        assert gpus.live == loaded
    assert np.array_equal(found.labels, wanted)
    assert "image and scores were kept in the host's" in found.warnings[0]


@pytest.mark.parametrize("error", [None, CUDNN])
def test_a_batch_that_did_not_fit_is_not_tried_with_the_next_scan(
    bundle: Path, wanted: Any, error: Exception | None
) -> None:
    with pretend_gpus() as gpus:
        segmenter = on_gpu(bundle)
        loaded = gpus.live
        gpus.fail("TorchMember.__call__", error, times=2)
        found = segmenter.segment(scan())
        assert segmenter._predictor.sliding_window.batch_size == 2
        # Besides the networks only what the pass holds, nothing of the windows tried.
        held = count_bytes_of_pass(segmenter)
        assert all(live <= loaded + held for live in gpus.at_retry)
        assert len(gpus.at_retry) == 2
        again = segmenter.segment(scan())
        assert len(gpus.at_retry) == 2
    assert not found.warnings
    assert np.array_equal(found.labels, wanted)
    assert np.array_equal(again.labels, wanted)


def count_bytes_of_pass(segmenter: Segmenter) -> int:
    """Return what image, scores and their weights take on the GPU."""
    window = segmenter._predictor.sliding_window
    windows = window.plan(scan()).windows
    sums = count_bytes_held(windows, window.layout.channels)
    taps = 3 * 8 * 4 * max(scan().shape)
    return sums + 4 * int(np.prod(windows.shape) + 16**3) + taps


@pytest.mark.parametrize(
    "where",
    [
        "Accumulator.add",
        "LabelWriter._find_winners",
        "ConfidenceAccumulator._add_planes",
        "SlidingWindowPass.finish",
    ],
)
def test_an_error_that_is_kept_holds_nothing_on_the_gpu(
    bundle: Path, where: str
) -> None:
    with pretend_gpus() as gpus:
        segmenter = on_gpu(bundle)
        loaded = gpus.live
        gpus.fail(where, RuntimeError("a bug"))
        with pytest.raises(RuntimeError, match="a bug") as raised:
            segmenter.segment(scan())
        clear_frames(raised.value)
        assert gpus.live == loaded


def test_what_did_not_fit_is_halved_though_another_thread_was_first(
    bundle: Path,
) -> None:
    with pretend_gpus():
        window = on_gpu(bundle)._predictor.sliding_window
        first, second = (
            SlidingWindowPass(window, window.plan(scan())) for _ in range(2)
        )
        window.batch_size = 2
        assert first.halve_batch(2)
        assert second.halve_batch(2)
        assert window.batch_size == 1
        assert not second.halve_batch(1)


def test_a_lack_of_memory_at_the_start_is_survived(
    bundle: Path, wanted: Any
) -> None:
    with pretend_gpus() as gpus:
        gpus.fail("Ensemble.measure_rounding_error")
        segmenter = Segmenter(bundle, "cuda")
        assert segmenter.precision == torch.bfloat16
        assert segmenter.segment(scan()).labels.shape == wanted.shape
        gpus.fail("TorchMember.__init__")
        with pytest.raises(
            MedsegError, match="networks do not fit the memory of cuda"
        ):
            Segmenter(bundle, "cuda")


def test_too_little_memory_for_one_window_is_an_error_of_the_scan(
    bundle: Path,
) -> None:
    with pretend_gpus() as gpus:
        segmenter = on_gpu(bundle)
        gpus.fail("TorchMember.__call__", times=1000)
        with pytest.raises(MedsegError, match="does not fit the memory of"):
            segmenter.segment(scan())


def test_parts_of_an_assembly_survive_a_lack_of_memory_together(
    untrained_bundle: Callable[..., Path],
) -> None:
    thorax = write_thorax(untrained_bundle)
    wanted = Segmenter(thorax, "cpu").segment(make_scan()).labels
    with pretend_gpus() as gpus:
        segmenter = on_gpu(thorax)
        loaded = gpus.live
        for where in ("_run_windows_together", "SharedInput._resample"):
            gpus.fail(where)
            found = segmenter.segment(make_scan())
            assert np.array_equal(found.labels, wanted)
        assert len(gpus.at_retry) == 2
        assert max(gpus.at_retry) == loaded
        assert gpus.live == loaded


def run_batch(bundle: Path, folder: Path, device: str, count: int = 4) -> Any:
    scans = folder / "scans"
    if not scans.is_dir():
        write_scans(scans, count)
    return segment(
        bundle,
        scans,
        folder / "out",
        device=device,
        precision="fp32",
        report=False,
        threads=1,
    )


def read_ledger(folder: Path) -> dict[str, Any]:
    lines = (folder / "out" / "ledger.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return {each["scan"]: each for each in entries if "scan" in each}


def test_a_gpu_that_fails_ends_the_batch_and_the_next_call_goes_on(
    bundle: Path, tmp_path: Path
) -> None:
    with pretend_gpus() as gpus:
        gpus.break_down("SlidingWindowPass.finish")
        with pytest.raises(
            MedsegError, match="start medseg again, and it goes on"
        ) as raised:
            run_batch(bundle, tmp_path, "cuda")
        assert "illegal memory access" in str(raised.value.detail)
    failed = read_ledger(tmp_path)
    assert [each["state"] for each in failed.values()] == ["error"]
    assert "cuda failed" in next(iter(failed.values()))["error"]
    batch = run_batch(bundle, tmp_path, "cpu")
    assert [each.state for each in batch.results] == ["done"] * 4


@pytest.mark.parametrize("device", ["cuda:0,1", "all"])
def test_gpus_share_a_batch_in_one_ledger(
    bundle: Path, tmp_path: Path, device: str
) -> None:
    run_batch(bundle, tmp_path / "alone", "cpu", count=6)
    with pretend_gpus(count=2) as gpus:
        batch = run_batch(bundle, tmp_path / "both", device, count=6)
        loading = gpus.by_device
        assert min(loading[0], loading[1]) > 0.2 * sum(loading.values())
    names = [each.scan for each in batch.results]
    assert names == sorted(names)
    assert {each.device for each in batch.results} == {"Pretend GPU"}
    alone = read_ledger(tmp_path / "alone")
    both = read_ledger(tmp_path / "both")
    assert {name: each["files"] for name, each in both.items()} == {
        name: each["files"] for name, each in alone.items()
    }


def test_where_one_of_two_gpus_fails_the_batch_ends(
    bundle: Path, tmp_path: Path
) -> None:
    with pretend_gpus(count=2) as gpus:
        gpus.break_down("SlidingWindowPass.finish")
        with pytest.raises(MedsegError, match="start medseg again"):
            run_batch(bundle, tmp_path, "all", count=6)
    batch = run_batch(bundle, tmp_path, "cpu")
    assert {each.state for each in batch.results} <= {"done", "skipped"}
    assert len(batch.results) == 6


def test_the_host_waits_for_the_gpu_for_labels_but_not_for_windows(
    bundle: Path,
) -> None:
    with pretend_gpus() as gpus:
        segmenter = on_gpu(bundle)
        for batch_size in (8, 1):
            segmenter._predictor.sliding_window.batch_size = batch_size
            gpus.forget_counts()
            segmenter.segment(scan())
            reasons = dict(gpus.waits)
            where = {place.split(" @ ")[1] for place in reasons}
            files = {place.partition(":")[0] for place in where}
            # What windows are cut from, computed and added to is waited for nowhere.
            assert files <= WAITING, reasons


@pytest.mark.parametrize("has_regions", [False, True])
def test_a_piece_of_labels_is_waited_for_only_where_its_size_is_asked_for(
    untrained_bundle: Callable[..., Path],
    has_regions: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coarse = {"spacing_mm": [2.0] * 3, "intensity": "zscore"}
    labels = NESTED if has_regions else {}
    bundle = untrained_bundle(preprocessing=coarse, **labels)
    wanted = Segmenter(bundle, "cpu", backend="torch").segment(scan())
    pieces: list[slice] = []
    write = LabelWriter._write

    def count(writer: LabelWriter, planes: slice, scores: Any) -> None:
        pieces.append(planes)
        write(writer, planes, scores)

    monkeypatch.setattr(LabelWriter, "_write", count)
    with pretend_gpus() as gpus:
        segmenter = on_gpu(bundle)
        gpus.forget_counts()
        found = segmenter.segment(scan())
        assert gpus.launches <= LAUNCHES_PER_SCAN[has_regions]
        waits = Counter[str]()
        for place, number in gpus.waits.items():
            reason, _, line = place.partition(" @ ")
            waits[f"{reason} @ {line.partition(':')[0]}"] += number
    assert len(pieces) > 1
    # How many voxels are at rims; and CUDA's histograms ask for the largest class.
    most = {"nonzero @ inference/label_writer.py": 2 * len(pieces)}
    if not has_regions:
        most["bincount @ inference/confidence.py"] = 2 * len(pieces)
    of_labels = {
        place: number for place, number in waits.items() if "inference" in place
    }
    assert of_labels == most
    # Of the input only where planes lie in it; and a window's smallest weight.
    assert waits.total() - sum(most.values()) <= 3
    assert np.array_equal(found.labels, wanted.labels)
    assert found.confidence == pytest.approx(wanted.confidence, abs=1e-5)


def test_an_error_while_labels_are_written_behind_reaches_the_scan(
    bundle: Path, wanted: Any
) -> None:
    with pretend_gpus() as gpus:
        segmenter = on_gpu(bundle)
        loaded = gpus.live
        gpus.fail("_write_on_arrival")
        found = segmenter.segment(scan())
        assert gpus.at_retry == [loaded]
        assert np.array_equal(found.labels, wanted)
        assert "image and scores were kept in the host's" in found.warnings[0]
        assert list_own_threads() == []
        gpus.break_down("_write_on_arrival")
        with pytest.raises(MedsegError, match="cuda failed"):
            segmenter.segment(scan())
    assert list_own_threads() == []


def test_scores_that_are_no_numbers_are_found_behind_the_gpu(
    bundle: Path,
) -> None:
    with pretend_gpus():
        segmenter = on_gpu(bundle)
        for weights in segmenter._predictor.ensemble.members[
            0
        ]._network.parameters():
            weights.data.fill_(torch.nan)
        with pytest.raises(MedsegError, match="not finite numbers"):
            segmenter.segment(scan())
    assert list_own_threads() == []


@pytest.mark.parametrize("taken", [0, 7])
def test_where_no_thread_can_begin_the_one_that_launches_does_it_all(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    submit = ThreadPoolExecutor.submit
    calls = itertools.count()

    def refuse(*given: Any) -> Any:
        # As it does once the main thread of a script has ended.
        if next(calls) < taken:
            return submit(*given)
        raise RuntimeError("cannot schedule new futures after shutdown")

    with pretend_gpus():
        segmenter = on_gpu(bundle)
        wanted = segmenter.segment(scan(), error_map=True)
        monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
        found = segmenter.segment(scan(), error_map=True)
    assert next(calls) > taken
    assert np.array_equal(found.labels, wanted.labels)
    assert np.array_equal(found.error_map, wanted.error_map)
    assert found.confidence == wanted.confidence
    assert list_own_threads() == []


@pytest.mark.parametrize(
    "act",
    [
        (host_writer, "_write_on_arrival"),
        (plane_reader.PlaneReader, "_lock_pages"),
    ],
)
def test_an_error_of_a_thread_holds_nothing_on_the_gpu_once_it_is_gone(
    bundle: Path, act: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a bug")

    with pretend_gpus() as gpus:
        segmenter = on_gpu(bundle)
        segmenter.segment(scan())
        gc.collect()
        loaded = gpus.live
        monkeypatch.setattr(*act, fail)
        # Else it may go by chance.
        gc.disable()
        try:
            with pytest.raises(ValueError, match="a bug"):
                segmenter.segment(scan())
            assert gpus.live == loaded
        finally:
            gc.enable()


def test_ctrl_c_leaves_no_thread_and_nothing_on_the_gpu(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pretend_gpus() as gpus:
        segmenter = on_gpu(bundle)
        segmenter._predictor.sliding_window.batch_size = 1
        loaded = gpus.live
        take = SlidingWindowPass._take_planes_before

        def interrupt(scan_pass: Any, finished: int) -> int:
            take(scan_pass, finished)
            assert list_own_threads()
            raise KeyboardInterrupt

        monkeypatch.setattr(SlidingWindowPass, "_take_planes_before", interrupt)
        with pytest.raises(KeyboardInterrupt) as raised:
            segmenter.segment(scan())
        assert list_own_threads() == []
        raised.value.__traceback__ = None
        del raised
        assert gpus.live == loaded


def list_own_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("medseg-")]


@pytest.mark.parametrize("slant", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["<i2", ">i2", "<u2", "<f4"])
def test_planes_are_sent_to_the_gpu_and_none_is_waited_for(
    kind: str, slant: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "_READ_AT_ONCE", 1)  # plane by plane
    values = np.random.default_rng(0).integers(0, 3000, (1, 12, 10, 30))
    image = values.astype(kind)
    matrix = np.diag([1.3, 1.3, 1.3, 1.0])
    matrix[0, 2] = slant
    grid_map = GridMap(matrix, (12, 10, 30), (9, 8, 23))
    here = resampling.resample_linear(image, grid_map)
    with pretend_gpus() as gpus:
        there = resampling.resample_linear(image, grid_map, GPU)
        assert gpus.waits.total() == 2
        assert torch.equal(there.cpu(), here)
    assert list_own_threads() == []


LAUNCHES_PER_SCAN = {False: 690, True: 820}
"""Of this scan of two pieces and its small network; they may not become more."""

WAITING = {
    "inference/label_writer.py",
    "inference/confidence.py",
    "preprocessing/resampling.py",
    "networks/window_weights.py",
}
"""Where a scan is sent to the GPU, and where its labels and their confidence come from it."""
