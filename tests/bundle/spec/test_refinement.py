"""The refinement section of a bundle: its faults are named."""

from __future__ import annotations

from typing import Any

import pytest
from support.bundles import made_spec

from medseg.errors import BundleError


@pytest.mark.parametrize(
    ("sections", "where", "what"),
    [
        (
            {"refinement": {"kind": "joint", "adversarial_weight": 0}},
            "refinement",
            "joint",
        ),
        (
            {"refinement": {"critic": {"layers": 3}}},
            "refinement.critic.layers",
            "24 voxels",
        ),
        ({"refinement": {"steps": 0}}, "refinement.steps", "greater"),
        (
            {"refinement": {"discriminator": {}}},
            "refinement.discriminator",
            "not a known field",
        ),
    ],
)
def test_faults_of_the_section_are_named(
    sections: Any, where: str, what: str
) -> None:
    with pytest.raises(BundleError) as caught:
        made_spec(**sections)
    faults = {fault.where: fault.what for fault in caught.value.faults}
    assert what in faults[where]
