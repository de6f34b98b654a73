"""What the benchmarks of refinement and quality count, and what they may claim."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from medseg.bundle.bundle import parse_spec
from medseg.inference.accumulator import Accumulator
from medseg.inference.confidence import ConfidenceAccumulator
from medseg.inference.windows import Windows
from medseg.labels import Label, LabelSet

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
    assert (
        figures.aurc(dice, dice)
        < figures.aurc(scores, dice)
        < figures.aurc(-dice, dice)
    )
    assert figures.covered(np.array([0.5, 0.6]), np.array([0.5, 0.5])) == 0.5
    found = figures.estimate(figures.auroc, scores, dice, ["a"] * 5 + ["b"] * 5)
    assert found.value == pytest.approx(15 / 16)
    assert found.low <= found.value <= found.high


def test_unseen_corruptions_are_none_at_0_and_grow(load) -> None:
    unseen = load("unseen").UNSEEN
    image = np.random.default_rng(0).random((12, 14, 10)).astype(np.float32)
    for change in unseen.values():
        made = [
            change(image, severity, np.random.default_rng(1))
            for severity in (0, 0.2, 1)
        ]
        assert all(
            one.shape == image.shape and np.isfinite(one).all() for one in made
        )
        apart = [float(np.abs(one - image).mean()) for one in made]
        assert apart[0] < 1e-5
        assert 1e-3 < apart[1] < apart[2]


def table(
    gain: float, seeds: int, noise: float = 0.001, seed: int = 0
) -> np.ndarray:
    return (
        0.85 + gain + np.random.default_rng(seed).normal(0, noise, (seeds, 40))
    )


@pytest.mark.parametrize(
    ("gain", "seeds", "gaps", "says"),
    [
        (0.01, 5, None, "helps"),
        (0.01, 5, [0.5] * 5, "helps"),
        (0.01, 5, [0.5, 0.5, 0.5, 0.5, 0.2], "invalid"),
        (0.01, 5, [0.5, float("nan")], "invalid"),
        (0.01, 4, None, "no claim: 4 of 5 seeds"),
        (0.001, 5, None, "not shown to help"),
        (-0.01, 5, None, "harms"),
    ],
)
def test_a_claim_needs_size_certainty_seeds_and_a_critic_that_separates(
    load, gain: float, seeds: int, gaps: list[float] | None, says: str
) -> None:
    claims = load("claims")
    patients = [str(n // 2) for n in range(40)]
    dice = claims.change(table(gain, seeds), table(0, seeds, seed=1), patients)
    hd95 = claims.change(
        table(0, seeds), table(0, seeds), patients, relative=True
    )
    assert claims.verdict(dice, hd95, seeds, gaps).startswith(says)


def test_an_uncertain_gain_is_no_help(load) -> None:
    claims = load("claims")
    patients = [str(n) for n in range(40)]
    dice = claims.change(
        table(0.004, 5, 0.1), table(0, 5, 0.1, seed=1), patients
    )
    assert dice.low < 0 < dice.high
    hd95 = claims.Change(0.0, -0.01, 0.01)
    assert claims.verdict(dice, hd95, 5) == "not shown to help"


@pytest.mark.parametrize("dims", [2, 3])
def test_a_critics_distances_are_those_to_the_surface(load, dims: int) -> None:
    mask = torch.zeros(1, 1, *[21] * dims)
    mask[(0, 0, *[slice(8, 13)] * dims)] = 1
    found = load("critics").signed_distances(mask, dims)[0, 0]
    middle = [10] * (dims - 1)
    along = [float(found[(*middle, place)]) for place in range(21)]
    assert along[10] == min(along) < -0.2
    assert along[0] == pytest.approx(1)
    assert all(a > b for a, b in itertools.pairwise(along[3:11]))
    assert along[7] > 0 > along[8]
    assert float(found.min()) >= -1
    assert float(found.max()) <= 1


@pytest.mark.parametrize("name", ["TwoScales", "Distances"])
def test_other_critics_judge_masks_and_let_gradients_reach_them(
    load, name: str
) -> None:
    spec = parse_spec(
        {
            "name": "made",
            "channels": [{"name": "CT"}],
            "labels": [{"index": 1, "name": "liver"}],
            "network": {
                "kind": "unet",
                "channels": [4, 8, 8],
                "strides": [1, 2, 2],
            },
            "training": {"patch": [24, 32, 24]},
            "refinement": {},
        }
    )
    critic = getattr(load("critics"), name)(spec, spec.refinement)
    image = torch.randn(
        2, 1, 24, 32, 24, generator=torch.Generator().manual_seed(0)
    )
    mask = torch.full((2, 2, 24, 32, 24), 0.5, requires_grad=True)
    *features, scores = critic(image, mask)
    assert features
    assert len(scores) == 2
    scores.mean().backward()
    assert mask.grad is not None
    assert float(mask.grad.abs().max()) > 0


def test_the_arms_expected_dice_is_medsegs_own(load) -> None:
    """The benchmark sums whole scans at once where medseg sums plane by plane."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 9, 8, 7, generator=generator)
    labels = LabelSet(
        [Label(1, "a", 1, (255, 0, 0)), Label(2, "b", 2, (0, 255, 0))]
    )
    windows = Windows((9, 8, 7), (9, 8, 7), 0.5)
    sums = Accumulator(windows, 6, torch.device("cpu"))
    sums.add((0, 0, 0), logits)
    parts = [slice(0, 3), slice(3, 6)]
    confidence = ConfidenceAccumulator((9, 8, 7), parts, 1, temperatures=(0.5,))
    confidence.add_before(7, sums)
    estimates = (logits.unflatten(0, (2, 3)) / 0.5).softmax(dim=1)
    found = load("ablation").expected_dice(
        estimates, logits[3:].argmax(dim=0), labels
    )
    assert found == pytest.approx(
        confidence.sums.expected_dice(labels), abs=1e-5
    )


def test_an_arm_is_compared_with_its_control_seed_by_seed_and_image_by_image(
    load,
) -> None:
    ablation = load("ablation")
    arm = ablation.Arm("refiner", "U-Net", "refiner")
    rows = [
        {
            "arm": name,
            "condition": "clean",
            "seed": seed,
            "case": case,
            "dice": dice,
            "hd95": 2.0,
        }
        for seed in range(5)
        for case in range(6)
        for name, dice in (
            ("U-Net", 0.5 + case / 20),
            ("refiner", 0.51 + case / 20),
        )
    ]
    dice, hd95 = ablation.compared(
        rows, arm, "clean", [str(n) for n in range(6)]
    )
    assert dice.value == pytest.approx(0.01)
    # Every pair differs by the same.
    assert dice.low == pytest.approx(dice.high)
    assert hd95.value == 0
