"""Chooses steps, optimizer, augmentation and the rest of the section ``training``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg.planning.constraints import Constraints, Notes
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.mask_labels import find_key
from medseg.planning.network import STEPS_SHARE, WIDE_STEP_FACTOR, NetworkPlan

UNTIMED_STEPS = {True: 8000, False: 3200}
"""Steps without a time budget, with and without a GPU."""

BUDGET_REASON = "As requested. The training run measures its own speed and fits the steps to it"

_MIN_STEPS, _MAX_STEPS = 200, 30_000
_VALIDATIONS = 8
_MAX_STEPS_BETWEEN_CHECKPOINTS = 100
_FEW_CASES = 50
_RARE_SHARE = 0.01
"""Below this share of labelled voxels, more patches are drawn from labels."""
_MIN_CLASS_WEIGHT = 0.001

_SIDES = {
    0: r"left|right|lt|rt|l|r|lh|rh|lateral|medial",
    1: r"anterior|posterior|ventral|dorsal|front|back",
    2: r"superior|inferior|upper|lower|top|bottom|cranial|caudal",
}
"""Axis → words in labels' names that mirroring along it would make wrong."""

Labels = Sequence[dict[str, Any]]
"""The labels as the bundle describes them."""


def choose_training(
    fingerprint: Fingerprint,
    network: NetworkPlan,
    labels: Labels,
    constraints: Constraints,
    notes: Notes,
) -> dict[str, Any]:
    """Return the section ``training``.

    Args:
        fingerprint: Of the data set.
        network: The network and its patch.
        labels: As the bundle describes them.
        constraints: What the plan has to fit.
        notes: Takes the reasons.
    """
    steps = _choose_steps(network, constraints, notes)
    section: dict[str, Any] = {
        "patch": list(network.patch),
        "batch_size": network.batch,
        "steps": steps,
    }
    if constraints.budget_minutes is not None:
        section["budget_minutes"] = round(constraints.budget_minutes, 3)
        notes["training.budget_minutes"] = BUDGET_REASON
    section |= _choose_optimizer(network, notes)
    section["ema"] = _choose_ema(steps, notes)
    if constraints.balanced:
        section["class_weights"] = _choose_class_weights(
            fingerprint, labels, notes
        )
    section["foreground_share"] = _choose_foreground_share(fingerprint, notes)
    section["augmentation"] = _choose_augmentation(
        fingerprint, network, labels, notes
    )
    interval = max(1, steps // _VALIDATIONS)
    section["validate_every"] = interval
    section["checkpoint_every"] = min(_MAX_STEPS_BETWEEN_CHECKPOINTS, interval)
    return section


def _choose_steps(
    network: NetworkPlan, constraints: Constraints, notes: Notes
) -> int:
    speed = constraints.voxels_per_second
    if constraints.budget_minutes is None or speed is None:
        notes["training.steps"] = (
            "Enough in most cases; use --budget to fit a time"
        )
        return UNTIMED_STEPS[constraints.on_gpu]
    seconds = 60 * constraints.budget_minutes * STEPS_SHARE
    # On a CPU the slim network was timed; with a GPU, the wide one.
    was_timed = constraints.on_gpu or network.slim
    slowdown = 1.0 if was_timed else WIDE_STEP_FACTOR
    steps = int(seconds * speed / (network.voxels_per_step * slowdown))
    notes["training.steps"] = (
        f"An estimate from {speed / 1e6:.2g} million voxels per second, measured here; the "
        "training run fits it to its own speed"
    )
    rounded = steps // 10 * 10
    return min(max(rounded, _MIN_STEPS), _MAX_STEPS)


def _choose_optimizer(network: NetworkPlan, notes: Notes) -> dict[str, Any]:
    if not network.slim:
        notes["training.optimizer"] = (
            "As in nnU-Net: SGD with momentum, if there is time for it"
        )
        return {"optimizer": "sgd", "learning_rate": 0.01, "schedule": "poly"}
    reason = "AdamW with a cosine schedule learns most in few steps, measured on hippocampus scans"
    learning_rate = 0.003
    if len(network.patch) == 2:
        reason += (
            "; in 2D at a third of the rate, measured on pictures of hearts"
        )
        learning_rate = 0.001
    notes["training.optimizer"] = reason
    return {
        "optimizer": "adamw",
        "learning_rate": learning_rate,
        "schedule": "cosine",
        "warmup_steps": 20,
    }


def _choose_ema(steps: int, notes: Notes) -> float:
    """Return the decay of the weights' moving average: an eighth of the steps, within limits."""
    decay = min(max(1 - 8 / steps, 0.98), 0.999)
    notes["training.ema"] = (
        f"Averages about the last {1 / (1 - decay):.0f} steps' weights"
    )
    return round(decay, 4)


def _choose_foreground_share(fingerprint: Fingerprint, notes: Notes) -> float:
    shares = []
    for case in fingerprint.cases:
        labelled = sum(label.voxels for label in case.labels)
        shares.append(labelled / case.voxels)
    typical = float(np.median(shares))
    notes["training.foreground_share"] = (
        f"{typical:.2%} of a typical image is labelled; each label is drawn equally often, "
        "however rare it is"
    )
    return 0.67 if typical < _RARE_SHARE else 0.5


def _choose_class_weights(
    fingerprint: Fingerprint, labels: Labels, notes: Notes
) -> dict[str, float]:
    """Weigh each label by the inverse square root of its volume; their mean is 1."""
    # By the inverse itself, a label of a thousandth of another's volume would drown it out.
    weights = {
        label["name"]: _compute_mean_volume_mm3(fingerprint, label) ** -0.5
        for label in labels
    }
    mean = sum(weights.values()) / len(weights)
    notes["training.class_weights"] = (
        "As requested: each label by the inverse square root of its mean volume where it occurs, "
        "so that a label with a hundredth of another's volume weighs ten times as much"
    )
    class_weights = {}
    for name, weight in weights.items():
        relative = float(f"{weight / mean:.3g}")
        class_weights[name] = max(relative, _MIN_CLASS_WEIGHT)
    return class_weights


def _compute_mean_volume_mm3(
    fingerprint: Fingerprint, label: dict[str, Any]
) -> float:
    """Return a label's mean volume over the cases that have it."""
    volumes = fingerprint.list_label_volumes_mm3(find_key(label))
    return float(np.mean(volumes))


def _choose_augmentation(
    fingerprint: Fingerprint, network: NetworkPlan, labels: Labels, notes: Notes
) -> dict[str, Any]:
    has_one_slice = all(case.shape[2] == 1 for case in fingerprint.cases)
    pictures = has_one_slice and len(network.patch) == 2
    names = [str(label["name"]) for label in labels]
    mirror_axes, reason = _choose_mirror_axes(names, pictures)
    notes["training.augmentation.mirror_axes"] = reason
    cases = len(fingerprint.cases)
    probability = 0.2
    reason = "the usual probability"
    if pictures:
        probability = 0.7
        reason = "varied more often"
    elif cases < _FEW_CASES:
        probability = 0.4
        reason = "varied more often"
    notes["training.augmentation.rotation"] = (
        f"{cases} pictures or cases: {reason}"
    )
    return {
        "mirror_axes": mirror_axes,
        "rotation": probability,
        "scaling": probability,
    }


def _choose_mirror_axes(
    names: Sequence[str], pictures: bool
) -> tuple[list[int], str]:
    """Return the axes to mirror along, and the reason.

    Args:
        names: Of the labels.
        pictures: Whether the images are pictures, not scans.
    """
    words: set[str] = set()
    for name in names:
        words.update(_split_words(name))
    candidates = [0, 1] if pictures else [0]
    axes = [axis for axis in candidates if not _name_a_side(words, axis)]
    if axes != candidates:
        return (
            axes,
            "Not where labels are named after a side, which mirroring would make wrong",
        )
    if pictures:
        return axes, "A picture may be taken from any side"
    return (
        axes,
        "Left and right only: bodies are roughly symmetric there, and nowhere else",
    )


def _split_words(name: str) -> list[str]:
    # KidneyL and LKidney are two words each, as kidney_left is.
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return re.findall(r"[a-z]+", spaced.lower())


def _name_a_side(words: set[str], axis: int) -> bool:
    return any(re.fullmatch(_SIDES[axis], word) for word in words)
