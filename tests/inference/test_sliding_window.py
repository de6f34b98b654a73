"""One pass over a scan: batches that fit, and memory that falls back to the host's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.bundles import made_spec

from medseg.errors import MedsegError
from medseg.inference import bundle_predictor
from medseg.inference.bundle_predictor import Ensemble
from medseg.inference.pass_plan import (
    HOST,
    HOST_ONLY,
    PassPlan,
    Storage,
    choose_storage,
)
from medseg.inference.segmenter import Segmenter
from medseg.inference.sliding_window import SlidingWindow
from medseg.inference.sliding_window_pass import SlidingWindowPass
from medseg.volume import Volume

GPU = torch.device("cuda")


def scan(seed: int = 0, depth: int = 40) -> Volume:
    voxels = (
        np.random.default_rng(seed)
        .normal(0, 100, (1, 20, 18, depth))
        .astype(np.float32)
    )
    return Volume(voxels, np.diag([-1.5, 1.5, 2.0, 1.0]), source="scan")


class Hungry:
    """Stands for a network on a small GPU: more windows at a time than ``most`` do not fit."""

    def __init__(self, ensemble: Ensemble, most: int) -> None:
        self.ensemble, self.most = ensemble, most
        self.batches: list[int] = []
        self.arithmetic = ensemble.arithmetic

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        if len(windows) > self.most:
            raise torch.OutOfMemoryError("no memory")
        self.batches.append(len(windows))
        return self.ensemble(windows)


def hungry_segmenter(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> Segmenter:
    segmenter = Segmenter(bundle, "cpu")
    runner = segmenter._predictor
    monkeypatch.setattr(runner, "ensemble", Hungry(runner.ensemble, most))
    runner.sliding_window.batch_size = 8
    return segmenter


def test_fewer_windows_at_a_time_where_memory_is_short(
    untrained_bundle: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bundle = untrained_bundle()
    segmenter = hungry_segmenter(bundle, monkeypatch, most=3)
    with caplog.at_level(logging.WARNING):
        labels = segmenter.segment(scan()).labels
    batches = segmenter._predictor.ensemble.batches
    assert batches[:-1] == [2] * (len(batches) - 1)
    assert 1 <= batches[-1] <= 2
    assert "going on with 2" in caplog.text
    assert np.array_equal(
        labels, Segmenter(bundle, "cpu").segment(scan()).labels
    )


def test_too_little_memory_for_one_window_is_an_error(
    untrained_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = hungry_segmenter(untrained_bundle(), monkeypatch, most=0)
    with pytest.raises(
        MedsegError, match="does not fit the memory of cpu"
    ) as raised:
        segmenter.segment(scan())
    assert raised.value.source == "scan"
    assert "scan of shape (20, 18, 40)" in raised.value.message


def test_windows_come_in_batches_and_each_once() -> None:
    setup = SlidingWindow(made_spec(), torch.device("cpu"))
    setup.batch_size = 3
    scan_pass = SlidingWindowPass(setup, setup.plan(scan()))
    seen = []
    while corners := scan_pass.next_corners():
        windows = scan_pass.cut(corners)
        assert windows.shape == (len(corners), 1, 16, 16, 16)
        seen += corners
        scan_pass.add(corners, torch.zeros(len(corners), 3, 16, 16, 16))
    assert len(seen) == len(set(seen)) > 8
    assert seen == setup.plan(scan()).windows.corners()
    assert not scan_pass.finish().labels.any()


@pytest.mark.parametrize(
    ("free", "storage"),
    [
        (100, Storage(GPU, GPU)),
        (99, Storage(HOST, GPU)),
        (60, Storage(HOST, GPU)),
        (59, Storage(GPU, HOST)),
        (40, Storage(GPU, HOST)),
        (39, Storage(HOST, HOST)),
    ],
)
def test_sums_go_onto_the_gpu_before_the_image(
    free: int, storage: Storage
) -> None:
    assert choose_storage(GPU, free, image=40, sums=60) == storage


@pytest.mark.parametrize(
    "planned", [Storage(GPU, HOST), Storage(HOST, GPU), Storage(GPU, GPU)]
)
def test_a_pass_that_used_the_gpu_falls_back_to_the_host(
    planned: Storage,
    untrained_bundle: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    segmenter = Segmenter(untrained_bundle(), "cpu")
    wanted = segmenter.segment(scan()).labels
    tried: list[Storage] = []

    class OnSmallGpu(SlidingWindowPass):
        def __init__(self, setup: SlidingWindow, plan: PassPlan) -> None:
            tried.append(plan.storage)
            if plan.storage.uses_gpu:
                raise torch.OutOfMemoryError("no memory")
            super().__init__(setup, plan)

    monkeypatch.setattr(
        SlidingWindow, "_choose_storage", lambda self, windows: planned
    )
    monkeypatch.setattr(bundle_predictor, "SlidingWindowPass", OnSmallGpu)
    found = segmenter.segment(scan())
    assert tried == [planned, HOST_ONLY]
    assert np.array_equal(found.labels, wanted)
    assert len(found.warnings) == 1
    assert "image and scores were kept in the host's" in found.warnings[0]


def test_there_is_no_second_try_in_the_hosts_memory(
    untrained_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail(setup: SlidingWindow, plan: PassPlan) -> SlidingWindowPass:
        tried.append(plan.storage)
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(bundle_predictor, "SlidingWindowPass", fail)
    with pytest.raises(MedsegError, match="does not fit the memory"):
        Segmenter(untrained_bundle(), "cpu").segment(scan())
    assert tried == [HOST_ONLY]
