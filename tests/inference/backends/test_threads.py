"""A lone scan of a single window is computed by every thread, with the same labels as by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.bundles import made_spec, trained_bundle

from medseg import Segmenter
from medseg._support.threads import limit_threads
from medseg.testing import make_phantom
from medseg.volume import Array, Volume


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_bundle(tmp_path_factory.mktemp("b") / "bundle", made_spec())


def segment(bundle: Path, backend: str, threads: int) -> tuple[Array, int]:
    """Return the labels of a scan of one window, and by how many threads it was computed."""
    volume: Volume = make_phantom(0, (16, 16, 16), 8.0)[0]
    with limit_threads(threads):
        segmenter = Segmenter(bundle, "cpu", backend=backend)
        used = torch.get_num_threads()
        if backend == "openvino":
            (member,) = segmenter._predictor.ensemble.members
            used = member._compiled.get_property("INFERENCE_NUM_THREADS")
        return segmenter.segment(volume).labels, used


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_one_window_takes_all_threads_and_has_the_same_labels(
    bundle: Path, backend: str
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    alone, used_alone = segment(bundle, backend, 1)
    together, used = segment(bundle, backend, 2)
    assert (used_alone, used) == (1, 2)
    assert alone.any()
    assert np.array_equal(alone, together)
