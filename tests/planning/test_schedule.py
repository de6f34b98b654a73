"""Steps, optimizer, augmentation."""

from __future__ import annotations

import pytest
from support.fingerprints import CPU, case, fingerprint_of

from medseg.planning import (
    Grid,
    choose_network,
    choose_training,
)


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (["liver"], [0]),
        (["left kidney", "right kidney"], []),
        (["Anterior", "Posterior"], [0]),
        (["LKidney", "kidneyRight"], []),
    ],
)
def test_no_mirror_makes_a_label_wrong(names: list[str], axes: list[int]) -> None:
    fingerprint = fingerprint_of(case())
    shape = choose_network(Grid(3, (1, 1, 1), (60, 60, 60), False), CPU, {})
    labels = [{"name": name} for name in names]
    training = choose_training(fingerprint, shape, labels, CPU, {})
    assert training["augmentation"]["mirror_axes"] == axes
