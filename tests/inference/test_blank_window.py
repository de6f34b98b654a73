"""Windows of one value are computed once, and labels are the same as if each had been."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.inference.blank_window import BlankWindow, find_values
from medseg.inference.bundle_predictor import Ensemble
from medseg.inference.segmenter import Segmenter
from medseg.volume import Volume


def test_a_window_is_blank_if_each_channel_has_one_value() -> None:
    window = torch.zeros(1, 2, 4, 4, 4)
    window[:, 1] = 3
    assert find_values(window) == (0, 3)
    for place in ((0, 0, 0), (3, 3, 3), (2, 0, 1)):
        other = window.clone()
        other[(0, 1, *place)] = 4
        assert find_values(other) is None
    assert find_values(torch.zeros(2, 1, 4, 4)) is None, "several windows"
    assert find_values(torch.full((1, 1, 4, 4), torch.nan)) is None


def test_scores_are_known_of_the_same_values_alone() -> None:
    blank = BlankWindow()
    air, water = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    scores = torch.ones(1, 2, 4, 4)
    assert blank.find_scores(air) is None
    blank.keep_scores(air, scores)
    assert blank.find_scores(air) is scores
    assert blank.find_scores(water) is None
    blank.keep_scores(torch.arange(16.0).view(1, 1, 4, 4), scores + 1)
    assert blank.find_scores(air) is scores


def test_labels_are_those_of_all_windows(
    untrained_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clipped = {"intensity": {"kind": "window", "low": 0, "high": 100}}
    folder = untrained_bundle(preprocessing=clipped)
    array = np.full((1, 60, 40, 40), -1000, np.float32, order="F")
    rng = np.random.default_rng(0)
    array[0, :18, :18, :18] = rng.normal(50, 30, (18, 18, 18))
    volume = Volume(array, np.eye(4), source="scan")
    computed: list[int] = []
    compute = Ensemble._compute

    def count(ensemble: Ensemble, windows: torch.Tensor) -> torch.Tensor:
        computed.append(1)
        return compute(ensemble, windows)

    monkeypatch.setattr(Ensemble, "_compute", count)
    segmenter = Segmenter(folder, "cpu")
    labels = segmenter.segment(volume).labels
    few = len(computed)
    computed.clear()
    monkeypatch.setattr(BlankWindow, "find_scores", lambda *_: None)
    every = Segmenter(folder, "cpu").segment(volume).labels
    assert np.array_equal(labels, every)
    assert few < len(computed) / 3
