"""Frozen predictions of a real network guard the way from probabilities to quality.

``tests/support/frozen_predictions.py`` made them, from phantoms. What is computed here is what a
training and a segmentation compute: sums over probabilities, raw scores, calibration, estimate.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.frozen_predictions import CALIBRATION, STEPS_PER_LOGIT

from medseg.inference.accumulator import Accumulator
from medseg.inference.confidence import ConfidenceAccumulator
from medseg.inference.windows import Windows
from medseg.labels import Label, LabelSet
from medseg.quality.agreement import compute_mask_dice
from medseg.quality.calibration import (
    CalibrationSample,
    calibrate,
    estimate_quality,
)
from medseg.testing import KIDNEY, LIVER

FILE = Path(__file__).with_name("frozen_predictions.npz")
LABELS = LabelSet(
    [
        Label(LIVER, "liver", LIVER, (255, 0, 0)),
        Label(KIDNEY, "kidney", KIDNEY, (0, 255, 0)),
    ]
)
FAILED = 0.7


def scored(steps: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Return raw scores and labels of one scan, as a sweep of windows gives them."""
    organs = torch.from_numpy(steps.astype(np.float32) / STEPS_PER_LOGIT)
    logits = torch.cat([torch.zeros_like(organs[:1]), organs])
    x, y, z = (int(n) for n in logits.shape[1:])
    windows = Windows((x, y, z), (x, y, z), 0.5)
    sums = Accumulator(windows, len(logits), torch.device("cpu"))
    for corner in windows.corners():
        sums.add(corner, logits)
    confidence = ConfidenceAccumulator((x, y, z), [slice(0, len(logits))])
    confidence.add_before(z, sums)
    return confidence.sums.expected_dice(LABELS), logits.argmax(
        dim=0
    ).numpy().astype(np.uint8)


@pytest.fixture(scope="module")
def samples() -> list[CalibrationSample]:
    found = []
    with np.load(FILE) as frozen:
        for steps, reference, case, is_clean in zip(
            *(
                frozen[name]
                for name in ("logits", "references", "case", "is_clean")
            ),
            strict=True,
        ):
            scores, labels = scored(steps)
            found.append(
                CalibrationSample(
                    str(case),
                    scores,
                    compute_mask_dice(labels, reference, LABELS),
                    bool(is_clean),
                )
            )
    return found


def auroc(scores: np.ndarray, failed: np.ndarray) -> float:
    """Chance that a failed result has the lower score; ties count half."""
    bad, good = scores[failed][:, None], scores[~failed][None]
    return float(((bad < good) + 0.5 * (bad == good)).mean())


def test_the_file_is_small_and_holds_good_and_failed_results(
    samples: list[CalibrationSample],
) -> None:
    assert FILE.stat().st_size < 400_000
    dice = np.array([np.mean(list(one.dice.values())) for one in samples])
    assert 0.1 < (dice < FAILED).mean() < 0.6
    assert dice[[one.is_clean for one in samples]].mean() > 0.8


def test_failed_results_are_found(samples: list[CalibrationSample]) -> None:
    known = calibrate(
        [s for s in samples if int(s.case) < CALIBRATION], LABELS.names
    )
    assert known is not None
    fresh = [one for one in samples if int(one.case) >= CALIBRATION]
    expected = np.array(
        [estimate_quality(one.scores, known).expected or 0.0 for one in fresh]
    )
    raw = np.array([np.mean(list(one.scores.values())) for one in fresh])
    dice = np.array([np.mean(list(one.dice.values())) for one in fresh])
    assert auroc(expected, dice < FAILED) >= 0.9
    assert np.abs(expected - dice).mean() < np.abs(raw - dice).mean()
    clean = [one for one in fresh if one.is_clean]
    held = [
        np.mean(list(one.dice.values()))
        >= (estimate_quality(one.scores, known).lower or 0.0)
        for one in clean
    ]
    assert np.mean(held) >= 0.75
