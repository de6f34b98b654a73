"""Optimiser, steps, augmentation and what else the training section says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg.planning.constraints import Constraints, Notes
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.network import WIDE_TAKES, NetworkPlan

UNTIMED_STEPS = {True: 8000, False: 3200}
"""Where nothing is said of time, with and without a GPU."""

_LEAST_STEPS, _MOST_STEPS = 200, 30_000
_VALIDATIONS = 8
_AT_STEPS = 0.75
_FEW_CASES = 50
_RARE = 0.01
"""Below this share of labelled voxels, more patches are drawn from labels."""

_LEAST_WEIGHT = 0.001

_SIDES = {
    0: r"left|right|lt|rt|l|r|lh|rh|lateral|medial",
    1: r"anterior|posterior|ventral|dorsal|front|back",
    2: r"superior|inferior|upper|lower|top|bottom|cranial|caudal",
}
"""Words in labels' names that a mirror along this axis would make wrong."""


def choose_training(
    survey: Fingerprint,
    shape: NetworkPlan,
    labels: Sequence[dict[str, Any]],
    wishes: Constraints,
    notes: Notes,
) -> dict[str, Any]:
    """Return the ``training`` section."""
    steps = _steps(shape, wishes, notes)
    section: dict[str, Any] = {
        "patch": list(shape.patch),
        "batch_size": shape.batch,
        "steps": steps,
    }
    if wishes.budget_minutes is not None:
        section["budget_minutes"] = round(wishes.budget_minutes, 3)
        notes["training.budget_minutes"] = (
            "As asked for. The training measures its own speed first and then fits the steps"
        )
    section |= _optimiser(shape, notes)
    decay = min(max(1 - 8 / steps, 0.98), 0.999)
    section["ema"] = round(decay, 4)
    notes["training.ema"] = f"Averages about the last {1 / (1 - decay):.0f} steps' weights"
    if wishes.balanced:
        section["class_weights"] = _balanced(survey, labels, notes)
    section["foreground_share"] = _foreground_share(survey, notes)
    section["augmentation"] = _augmentation(survey, shape, labels, notes)
    section["validate_every"] = max(1, steps // _VALIDATIONS)
    section["checkpoint_every"] = min(100, max(1, steps // _VALIDATIONS))
    return section


def _steps(shape: NetworkPlan, wishes: Constraints, notes: Notes) -> int:
    if wishes.budget_minutes is None or wishes.voxels_per_second is None:
        notes["training.steps"] = "Enough in most cases; give --budget to fit a time"
        return UNTIMED_STEPS[wishes.on_gpu]
    seconds = 60 * wishes.budget_minutes * _AT_STEPS
    # The slim network was timed.
    slower = 1.0 if wishes.on_gpu or shape.slim else WIDE_TAKES
    steps = int(seconds * wishes.voxels_per_second / (shape.voxels * slower))
    notes["training.steps"] = (
        f"An estimate from {wishes.voxels_per_second / 1e6:.2g} million voxels a second, measured "
        "here; the training fits it to its own speed"
    )
    return min(max(steps // 10 * 10, _LEAST_STEPS), _MOST_STEPS)


def _optimiser(shape: NetworkPlan, notes: Notes) -> dict[str, Any]:
    if shape.slim:
        flat = len(shape.patch) == 2
        notes["training.optimizer"] = (
            "AdamW with a cosine schedule learns most in few steps, measured on hippocampus scans"
            + ("; in 2D at a third of the rate, measured on pictures of hearts" if flat else "")
        )
        return {
            "optimizer": "adamw",
            "learning_rate": 0.001 if flat else 0.003,
            "schedule": "cosine",
            "warmup_steps": 20,
        }
    notes["training.optimizer"] = "As in nnU-Net: SGD with momentum, where there is time for it"
    return {"optimizer": "sgd", "learning_rate": 0.01, "schedule": "poly"}


def _foreground_share(survey: Fingerprint, notes: Notes) -> float:
    shares = [sum(la.voxels for la in case.labels) / case.voxels for case in survey.cases]
    share = float(np.median(shares))
    chosen = 0.67 if share < _RARE else 0.5
    notes["training.foreground_share"] = (
        f"{share:.2%} of a typical image is labelled; each label is drawn equally often, however "
        "rare it is"
    )
    return chosen


def _balanced(
    survey: Fingerprint, labels: Sequence[dict[str, Any]], notes: Notes
) -> dict[str, float]:
    """Weigh each label by the inverse square root of its volume; their mean is 1."""
    # The inverse itself would let a label of a thousandth of another's volume drown it.
    weights = {label["name"]: _volume(survey, label) ** -0.5 for label in labels}
    mean = sum(weights.values()) / len(weights)
    notes["training.class_weights"] = (
        "As asked for: each label by the inverse square root of its mean volume where it occurs, "
        "so that one of a hundredth of another's volume weighs ten times as much"
    )
    return {
        name: max(float(f"{weight / mean:.3g}"), _LEAST_WEIGHT) for name, weight in weights.items()
    }


def _volume(survey: Fingerprint, label: dict[str, Any]) -> float:
    """Return a label's mean volume in mm³ over the cases that have it."""
    value = label.get("value", label["index"])
    found = [
        one.voxels * float(np.prod(case.spacing))
        for case in survey.cases
        for one in case.labels
        if one.value == value
    ]
    return float(np.mean(found))


def _augmentation(
    survey: Fingerprint, shape: NetworkPlan, labels: Sequence[dict[str, Any]], notes: Notes
) -> dict[str, Any]:
    pictures = all(case.shape[2] == 1 for case in survey.cases) and len(shape.patch) == 2
    axes, why = _mirrors([str(label["name"]) for label in labels], pictures)
    chosen: dict[str, Any] = {"mirror_axes": axes}
    notes["training.augmentation.mirror_axes"] = why
    cases = len(survey.cases)
    often = 0.7 if pictures else 0.4 if cases < _FEW_CASES else 0.2
    chosen |= {"rotation": often, "scaling": often}
    notes["training.augmentation.rotation"] = (
        f"{cases} pictures or cases: {'varied more' if often > 0.2 else 'the usual share'}"
    )
    return chosen


def _mirrors(names: Sequence[str], pictures: bool) -> tuple[list[int], str]:
    # KidneyL and LKidney are two words each, as kidney_left is.
    apart = (re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name) for name in names)
    words = {word for name in apart for word in re.split(r"[^a-z]+", name.lower()) if word}
    wanted = [0, 1] if pictures else [0]
    spoiled = [axis for axis in wanted if any(re.fullmatch(_SIDES[axis], word) for word in words)]
    axes = [axis for axis in wanted if axis not in spoiled]
    if spoiled:
        return axes, "Not where labels are named after a side, which a mirror would make wrong"
    if pictures:
        return axes, "A picture may be taken from any side"
    return axes, "Left and right only: bodies are about symmetric there, and nowhere else"
