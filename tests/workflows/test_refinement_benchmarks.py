"""What the benchmark of quality counts, and the corruptions that it makes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "workflows" / "benchmarks" / "refinement"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def test_figures_are_those_counted_by_hand(load) -> None:
    figures = load("figures")
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    dice = np.array([0.2, 0.9, 0.3, 0.8, 0.8, 0.8, 0.8, 0.9, 0.9, 0.9])
    assert figures.auroc(scores, dice) == pytest.approx(15 / 16)
    assert figures.failures_found(scores, dice) == 0.5
    assert figures.most_found(scores, dice) == 1
    assert figures.auroc(dice, dice) == 1
    assert figures.auroc(-dice, dice) == 0
    assert figures.auroc(np.zeros(10), dice) == 0.5
    assert figures.failures_found(np.zeros(10), dice) == pytest.approx(0.2)
    assert np.isnan(figures.auroc(scores, np.ones(10)))
    assert figures.aurc(np.zeros(10), dice) == pytest.approx((1 - dice).mean())
    assert figures.aurc(dice, dice) < figures.aurc(scores, dice) < figures.aurc(-dice, dice)
    assert figures.covered(np.array([0.5, 0.6]), np.array([0.5, 0.5])) == 0.5
    found = figures.estimate(figures.auroc, scores, dice, ["a"] * 5 + ["b"] * 5)
    assert found.value == pytest.approx(15 / 16)
    assert found.low <= found.value <= found.high


def test_unseen_corruptions_are_none_at_0_and_grow(load) -> None:
    unseen = load("unseen").UNSEEN
    image = np.random.default_rng(0).random((12, 14, 10)).astype(np.float32)
    for change in unseen.values():
        made = [change(image, severity, np.random.default_rng(1)) for severity in (0, 0.2, 1)]
        assert all(one.shape == image.shape and np.isfinite(one).all() for one in made)
        apart = [float(np.abs(one - image).mean()) for one in made]
        assert apart[0] < 1e-5
        assert 1e-3 < apart[1] < apart[2]
