"""Masks made by someone else are judged by the bundle's probabilities and its own mask."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.errors import GeometryError, ScanError
from medseg.inference.segmenter import Segmenter
from medseg.volume import Volume


def random_scan(seed: int = 3) -> Volume:
    voxels = (
        np.random.default_rng(seed)
        .normal(0, 100, (1, 22, 20, 18))
        .astype(np.float32)
    )
    return Volume(voxels, np.diag([-1.5, 1.5, 2.0, 1.0]))


def calibrate(
    bundle: Path, scores: list[float], dice: list[float], review_below: float
) -> None:
    curve = {"scores": scores, "dice": dice, "margin": 0.1, "cases": 20}
    known = {
        "case": curve,
        "coverage": 0.9,
        "review_below": review_below,
        "review_share": 0.1,
    }
    (bundle / "models" / "trained.json").write_text(
        json.dumps({"quality": known})
    )


def test_the_bundles_own_mask_agrees_with_it(
    untrained_bundle: Callable[..., Path],
) -> None:
    segmenter, volume = Segmenter(untrained_bundle(), "cpu"), random_scan()
    own = segmenter.segment(volume)
    judged = segmenter.judge(volume, own.labels)
    assert judged.own == own.quality
    assert set(judged.labels) == {"liver", "kidney"}
    for name, found in judged.labels.items():
        assert found.dice == 1
        assert found.raw == pytest.approx(own.confidence[name], abs=1e-6)
        assert found.expected is None
        assert found.lower is None
    assert not judged.is_calibrated


def test_labels_that_were_not_asked_for_are_not_judged(
    untrained_bundle: Callable[..., Path],
) -> None:
    bundle, volume = untrained_bundle(), random_scan()
    mask = Segmenter(bundle, "cpu").segment(volume).labels
    assert set(np.unique(mask)) >= {1, 2}
    judged = Segmenter(bundle, "cpu", labels="liver").judge(volume, mask)
    assert set(judged.labels) == {"liver"}
    assert judged.mean is not None
    assert judged.mean.dice == 1
    assert judged.reasons == ()


def test_labels_are_turned_as_the_scan_is(
    untrained_bundle: Callable[..., Path],
) -> None:
    segmenter = Segmenter(
        untrained_bundle(preprocessing={"spacing_mm": [1.5, 1.5, 2]}), "cpu"
    )
    own = segmenter.segment(random_scan())
    judged = segmenter.judge(random_scan(), own.labels)
    for name, found in judged.labels.items():
        assert found.raw == pytest.approx(own.confidence[name], abs=1e-6)
    mirrored = segmenter.judge(random_scan(), own.labels[::-1])
    assert mirrored.mean is not None
    assert judged.mean is not None
    assert mirrored.mean.raw < judged.mean.raw - 0.01


@pytest.mark.parametrize("spacing", [[2, 2, 2], [1, 1, 1], [0.9, 1.7, 4]])
def test_a_mask_and_its_complement_hold_all_probability_on_any_grid(
    untrained_bundle: Callable[..., Path], spacing: list[float]
) -> None:
    segmenter = Segmenter(
        untrained_bundle(preprocessing={"spacing_mm": spacing}), "cpu"
    )
    everywhere = np.ones((22, 20, 18), np.uint8)
    front = everywhere.copy()
    front[:, :8] = 0
    whole, one, other = (
        segmenter.judge(random_scan(), mask).labels["liver"].raw
        for mask in (everywhere, front, 1 - front)
    )
    total = whole / (2 - whole)  # as a share of all voxels
    inside = one * (12 / 20 + total) + other * (8 / 20 + total)
    assert inside == pytest.approx(2 * total, rel=0.1)


def test_the_worse_a_mask_the_lower_it_is_judged(
    untrained_bundle: Callable[..., Path],
) -> None:
    bundle = untrained_bundle()
    file = bundle / "models" / "model.pt"
    weights = torch.load(file, weights_only=True)
    sure = {
        k: 50 * v if k.startswith("output_block") else v
        for k, v in weights.items()
    }
    assert any((sure[name] != value).any() for name, value in weights.items())
    torch.save(sure, file)
    segmenter, volume = Segmenter(bundle, "cpu"), random_scan()
    own = segmenter.segment(volume).labels
    wrong, judged = np.random.default_rng(0).random(own.shape), []
    for share in (0.0, 0.1, 0.4, 1.0):
        mask = np.where(wrong < share, (own + 1) % 3, own)
        judged.append(segmenter.judge(volume, mask).mean)
    for better, worse in itertools.pairwise(judged):
        assert better is not None
        assert worse is not None
        assert better.raw > worse.raw + 0.02
        assert better.dice > worse.dice + 0.05


def test_voxels_outside_the_box_that_is_looked_at_are_doubted(
    untrained_bundle: Callable[..., Path],
) -> None:
    bundle = untrained_bundle(preprocessing={"crop_above": -900})
    segmenter, volume = Segmenter(bundle, "cpu"), random_scan()
    voxels = volume.array.copy()
    voxels[:, :, :, 12:] = -1000
    volume = volume.with_array(voxels)
    inside = segmenter.segment(volume).labels
    both = inside.copy()
    both[:, :, 12:] = 1
    before, after = (
        segmenter.judge(volume, mask).labels["liver"] for mask in (inside, both)
    )
    share = (inside == 1).sum() / (both == 1).sum()
    assert after.raw < before.raw * (0.5 + share / 2)
    assert after.dice < before.dice == 1


def test_the_calibration_is_used_and_the_limit_flags(
    untrained_bundle: Callable[..., Path],
) -> None:
    bundle, volume = untrained_bundle(), random_scan()
    raw = Segmenter(bundle, "cpu").judge(
        volume, Segmenter(bundle, "cpu").segment(volume).labels
    )
    assert raw.mean is not None
    for limit, flagged in ((0.2, False), (0.9, True)):
        calibrate(bundle, [0, 1], [0, 0.8], limit)
        segmenter = Segmenter(bundle, "cpu")
        judged = segmenter.judge(volume, segmenter.segment(volume).labels)
        assert judged.mean is not None
        assert judged.mean.raw == raw.mean.raw
        assert judged.mean.expected == pytest.approx(
            0.8 * raw.mean.raw, abs=1e-4
        )
        assert judged.is_calibrated
        assert judged.review == flagged
        for name, found in judged.labels.items():
            assert found.lower == pytest.approx(
                judged.own.labels[name].lower, abs=1e-4
            )


def test_a_structure_that_only_one_mask_holds_is_flagged(
    untrained_bundle: Callable[..., Path],
) -> None:
    segmenter, volume = Segmenter(untrained_bundle(), "cpu"), random_scan()
    mask = segmenter.segment(volume).labels.copy()
    mask[mask == 2] = 0
    judged = segmenter.judge(volume, mask)
    assert judged.labels["kidney"].dice == 0
    assert judged.labels["kidney"].raw == 0
    assert judged.review


@pytest.mark.parametrize(
    ("labels", "error", "says"),
    [
        (np.zeros((22, 20, 17), np.uint8), GeometryError, "one grid"),
        (np.zeros((22, 20, 18), np.float32), ScanError, "integers"),
        (np.full((22, 20, 18), 3, np.int16), ScanError, "0 to 2"),
        (np.full((22, 20, 18), -1, np.int16), ScanError, "from -1"),
    ],
)
def test_what_is_no_label_map_of_the_scan_is_refused(
    untrained_bundle: Callable[..., Path],
    labels: np.ndarray,
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says):
        Segmenter(untrained_bundle(), "cpu").judge(random_scan(), labels)
