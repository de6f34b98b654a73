"""Steps, optimizer, augmentation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.fingerprints import CPU, case, channel, fingerprint_of

from medseg.planning import (
    Constraints,
    Grid,
    choose_network,
    choose_training,
)
from medseg.planning.fingerprint import CaseFingerprint, LabelStatistics


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (["liver"], [0]),
        (["left kidney", "right kidney"], []),
        (["Anterior", "Posterior"], [0]),
        (["LKidney", "kidneyRight"], []),
    ],
)
def test_no_mirror_makes_a_label_wrong(
    names: list[str], axes: list[int]
) -> None:
    fingerprint = fingerprint_of(case())
    shape = choose_network(Grid(3, (1, 1, 1), (60, 60, 60), False), CPU, {})
    labels = [{"name": name} for name in names]
    training = choose_training(fingerprint, shape, labels, CPU, {})
    assert training["augmentation"]["mirror_axes"] == axes


def training_of(
    labels: list[dict[str, Any]], constraints: Constraints, **sizes: Any
) -> Any:
    fingerprint = fingerprint_of(case(**sizes))
    network = choose_network(
        Grid(3, (1, 1, 1), (60, 60, 60), False), constraints, {}
    )
    return choose_training(fingerprint, network, labels, constraints, {})


LIVER = [{"index": 1, "name": "liver"}]


def test_steps_fit_three_quarters_of_the_budget() -> None:
    timed = replace(CPU, budget_minutes=10, voxels_per_second=1e6)
    network = choose_network(Grid(3, (1, 1, 1), (60, 60, 60), False), timed, {})
    training = choose_training(
        fingerprint_of(case()), network, LIVER, timed, {}
    )
    assert (
        training["steps"] == int(450 * 1e6 / network.voxels_per_step) // 10 * 10
    )
    assert training["validate_every"] == training["steps"] // 8
    assert training_of(LIVER, CPU)["steps"] == 3200


def test_rare_labels_are_drawn_more_often() -> None:
    # Of 216,000.
    assert training_of(LIVER, CPU, voxels=2159)["foreground_share"] == 0.67
    assert training_of(LIVER, CPU, voxels=2160)["foreground_share"] == 0.5


def test_class_weights_are_the_inverse_root_of_volumes_in_mm() -> None:
    labels = [LabelStatistics(1, 10_000, 1), LabelStatistics(2, 100, 1)]
    both = CaseFingerprint(
        (60, 60, 60), (2, 2, 2), (channel(),), tuple(labels), 1.0
    )
    network = choose_network(Grid(3, (2, 2, 2), (60, 60, 60), False), CPU, {})
    balanced = replace(CPU, balanced=True)
    names = [*LIVER, {"index": 2, "name": "cyst"}]
    weights = choose_training(
        fingerprint_of(both), network, names, balanced, {}
    )["class_weights"]
    assert weights["cyst"] / weights["liver"] == pytest.approx(10, rel=0.01)
    assert sum(weights.values()) / 2 == pytest.approx(1, abs=0.01)
