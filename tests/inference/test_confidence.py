"""Confidence is what the probabilities of whole scans add up to, gathered plane by plane."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scores import CPU, logits

from medseg.inference.accumulator import Accumulator
from medseg.inference.confidence import ConfidenceAccumulator, ConfidenceSums
from medseg.inference.segmenter import Segmenter
from medseg.inference.windows import Windows
from medseg.labels import Label, LabelSet
from medseg.volume import Volume

LABELS = LabelSet(
    [Label(1, "a", 1, (255, 0, 0)), Label(2, "b", 2, (0, 255, 0))]
)


def gathered(
    scores: torch.Tensor,
    planes: int,
    parts: list[slice],
    chosen: int = 0,
    given: np.ndarray | None = None,
    temperatures: tuple[float, ...] = (1.0,),
) -> ConfidenceSums:
    shape = (scores.shape[1], scores.shape[2], scores.shape[3])
    windows = Windows((shape[0], shape[1], planes), shape, 0.25)
    sums = Accumulator(windows, len(scores), CPU)
    confidence = ConfidenceAccumulator(
        shape, parts, chosen, given, temperatures
    )
    for corner in windows.corners():
        if not sums.has_room_for(corner):
            confidence.add_before(corner[2], sums)
            sums.drop_before(corner[2])
        sums.add(corner, scores[..., corner[2] : corner[2] + planes])
    confidence.add_before(shape[2], sums)
    return confidence.sums


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(5, 60), st.integers(3, 9), st.integers(0, 5))
def test_it_is_the_expected_dice_of_whole_scans(
    depth: int, planes: int, seed: int
) -> None:
    scores = logits((6, 5, depth), seed=seed)
    found = gathered(scores, min(planes, depth), [slice(0, 3)])
    p, mask = scores.softmax(0).double(), scores.argmax(0)
    for label in LABELS:
        own = p[label.index][mask == label.index].sum()
        dice = 2 * own / (p[label.index].sum() + (mask == label.index).sum())
        if (mask == label.index).any():
            got = found.expected_dice(LABELS)[label.name]
            assert got == pytest.approx(float(dice), abs=1e-5)
    wrong = 100 * (1 - p.max(0).values)
    assert np.abs(found.errors - wrong.numpy()).max() <= 0.51


def test_each_temperature_judges_the_same_mask_by_its_own_probabilities() -> (
    None
):
    scores, temperatures = logits((6, 5, 20)), (0.5, 1.0, 2.0)
    found = gathered(scores, 7, [slice(0, 3)], temperatures=temperatures)
    mask = scores.argmax(0) == 1
    for which, temperature in enumerate(temperatures):
        p = (scores / temperature).softmax(0)[1].double()
        dice = 2 * p[mask].sum() / (p.sum() + mask.sum())
        got = found.expected_dice(LABELS, which)["a"]
        assert got == pytest.approx(float(dice), abs=1e-5)
    wrong = 100 * (1 - (scores / 0.5).softmax(0).max(0).values)
    assert np.abs(found.errors - wrong.numpy()).max() <= 0.51


def test_two_estimates_judge_the_mask_of_the_chosen_one() -> None:
    coarse, refined = logits((6, 5, 8), seed=1), logits((6, 5, 8), seed=2)
    parts = [slice(0, 3), slice(3, 6)]
    found = gathered(torch.cat([coarse, refined]), 8, parts, chosen=1)
    mask = refined.argmax(0) == 1
    each = []
    for scores in (coarse, refined):
        p = scores.softmax(0)[1]
        each.append(float(2 * p[mask].sum() / (p.sum() + mask.sum())))
    assert found.expected_dice(LABELS)["a"] == pytest.approx(
        np.mean(each), abs=1e-5
    )


def test_what_is_not_there_has_no_score() -> None:
    scores = torch.zeros(3, 4, 4, 4)
    scores[0] = 9.0
    assert gathered(scores, 4, [slice(0, 3)]).expected_dice(LABELS) == {}


def test_a_structure_that_was_nearly_found_counts_as_doubtful() -> None:
    scores = torch.zeros(3, 4, 4, 4)
    scores[0] = 9.0
    scores[:2, 1, 1, 1] = torch.tensor([2.0, 1.5])
    assert gathered(scores, 4, [slice(0, 3)]).expected_dice(LABELS) == {
        "a": 0.0
    }


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(5, 40), st.integers(3, 9), st.integers(0, 5))
def test_labels_that_are_given_are_judged_by_the_same_probabilities(
    depth: int, planes: int, seed: int
) -> None:
    scores = logits((6, 5, depth), seed=seed)
    labels = (
        np.random.default_rng(seed)
        .integers(0, 3, (6, 5, depth))
        .astype(np.uint8)
    )
    found = gathered(scores, min(planes, depth), [slice(0, 3)], given=labels)
    p = scores.softmax(0).double().numpy()
    for label in LABELS:
        mask = labels == label.index
        dice = (
            2 * p[label.index][mask].sum() / (p[label.index].sum() + mask.sum())
        )
        assert found.expected_dice(LABELS)[label.name] == pytest.approx(
            dice, abs=1e-5
        )
    wrong = 100 * (
        1 - np.take_along_axis(p, labels[None].astype(int), axis=0)[0]
    )
    assert np.abs(found.errors - wrong).max() <= 0.51


def test_voxels_where_the_network_did_not_look_count_against_a_mask() -> None:
    scores = torch.zeros(3, 4, 4, 4)
    scores[1] = 20.0
    given = np.ones((4, 4, 4), np.uint8)
    found = gathered(scores, 4, [slice(0, 3)], given=given)
    assert found.expected_dice(LABELS)["a"] == pytest.approx(1)
    more = found.with_voxels_outside(np.array([0.0, 64.0, 0.0]))
    assert more.expected_dice(LABELS)["a"] == pytest.approx(2 / 3)


def random_scan(seed: int = 3) -> Volume:
    voxels = (
        np.random.default_rng(seed)
        .normal(0, 100, (1, 22, 20, 18))
        .astype(np.float32)
    )
    return Volume(voxels, np.diag([-1.5, 1.5, 2.0, 1.0]))


def test_an_error_map_lies_on_the_scans_grid(
    untrained_bundle: Callable[..., Path],
) -> None:
    volume = random_scan()
    folder = untrained_bundle(preprocessing={"spacing_mm": [2, 2, 2]})
    found = Segmenter(folder, "cpu").segment(volume, error_map=True)
    assert found.error_map is not None
    assert found.error_map.shape == volume.shape
    assert found.error_map.dtype == np.uint8
    # Three classes: the best has a third at least.
    assert 0 < found.error_map.mean() < 67
    assert Segmenter(folder, "cpu").segment(volume).error_map is None


def test_parts_that_are_removed_lower_the_confidence(
    untrained_bundle: Callable[..., Path],
) -> None:
    volume = random_scan()
    everything = Segmenter(untrained_bundle("all"), "cpu").segment(volume)
    folder = untrained_bundle("largest", inference={"keep_largest": ["kidney"]})
    largest = Segmenter(folder, "cpu").segment(volume)
    assert (largest.labels == 2).sum() < (everything.labels == 2).sum()
    assert largest.confidence["kidney"] < everything.confidence["kidney"]
    assert largest.confidence["liver"] == everything.confidence["liver"]


def test_without_calibration_a_result_has_an_estimate_and_no_bound(
    untrained_bundle: Callable[..., Path],
) -> None:
    quality = (
        Segmenter(untrained_bundle(), "cpu").segment(random_scan()).quality
    )
    assert quality.expected is not None
    assert 0 < quality.expected < 1
    assert quality.lower is None
    assert not quality.is_calibrated
    assert set(quality.labels) == {"liver", "kidney"}


def calibrated(folder: Path, **changes: float) -> Path:
    curve = {"scores": [0, 1], "dice": [0, 0.5], "margin": 0.1, "cases": 20}
    known = {
        "case": curve,
        "coverage": 0.9,
        "review_below": 0.5,
        "review_share": 0.1,
        **changes,
    }
    (folder / "models" / "trained.json").write_text(
        json.dumps({"quality": known})
    )
    return folder


def test_the_bundles_temperature_sharpens_confidence_and_changes_no_label(
    untrained_bundle: Callable[..., Path],
) -> None:
    plain = Segmenter(calibrated(untrained_bundle("plain")), "cpu")
    sharp = Segmenter(
        calibrated(untrained_bundle("sharp"), temperature=0.5), "cpu"
    )
    first = plain.predict(random_scan(), temperatures=(0.5, 0.25)).finish(
        keep_largest=()
    )
    second = sharp.segment(random_scan())
    assert np.array_equal(first.labels, second.labels)
    assert list(first.confidence_at) == [0.5, 0.25]
    for name, score in second.confidence.items():
        assert first.confidence_at[0.5][name] == pytest.approx(score, abs=1e-6)
        assert first.confidence[name] < score < first.confidence_at[0.25][name]
    assert second.quality.expected == pytest.approx(
        np.mean(list(second.confidence.values())) / 2, abs=1e-4
    )


def test_the_bundles_calibration_is_used(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = calibrated(untrained_bundle())
    found = Segmenter(folder, "cpu").segment(random_scan())
    raw = np.mean(list(found.confidence.values()))
    assert found.quality.expected == pytest.approx(raw / 2, abs=1e-4)
    assert found.quality.lower == pytest.approx(
        raw / 2 - 0.1 * (1.02 - raw / 2), abs=2e-4
    )
    assert found.quality.is_calibrated
    assert found.quality.review
