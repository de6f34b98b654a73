"""The U-Net: every option builds and runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.bundles import made_spec

from medseg.bundle.spec import BundleSpec
from medseg.errors import BundleError
from medseg.networks.building import build_network, try_network
from medseg.networks.levels import list_levels


def run(spec: BundleSpec, supervised: bool = True) -> torch.Tensor:
    """Pass a random patch through a network in evaluation."""
    torch.manual_seed(0)
    network = build_network(spec, supervised).eval()
    with torch.no_grad():
        return list_levels(
            network(torch.randn(2, len(spec.channels), *spec.training.patch))
        )[0]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"residual": True},
    {"norm": "batch"},
    {"norm": "group", "channels": 8},
    {"dropout": 0.3},
    {"deep_supervision": False},
    {"channels": 4},
    {"kernel_sizes": [1, 3, 5]},
    {"channels": [4, 8, 8, 16], "strides": [1, 2, 2, 2]},
    {
        "channels": [4, 8, 8, 16],
        "strides": [1, 2, 1, 2],
        "residual": True,
        "dropout": 0.1,
    },
]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_of_the_unet_gives_one_logit_per_class_and_voxel(
    options: dict[str, Any], dims: int
) -> None:
    spec = made_spec(
        network={"dims": dims, **options},
        training={"patch": [16, 24, 16][:dims]},
        channels=[{"name": "a"}, {"name": "b"}],
    )
    try_network(spec)
    for supervised in (True, False):
        logits = run(spec, supervised)
        assert logits.shape == (2, 3, *spec.training.patch)
        assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("options", "patch", "divisor"),
    [
        (
            {"strides": [1, [2, 2, 1], 2], "kernel_sizes": [[3, 3, 1], 3, 3]},
            [16, 16, 6],
            (4, 4, 2),
        ),
        ({"strides": [1, [1, 2, 4], [3, 1, 1]]}, [9, 8, 12], (3, 2, 4)),
        ({"dims": 2, "strides": [1, [2, 1], 2]}, [12, 10], (4, 2)),
    ],
)
def test_anisotropic_strides(
    options: dict[str, Any], patch: list[int], divisor: tuple[int, ...]
) -> None:
    spec = made_spec(network=options, training={"patch": patch})
    assert spec.network.divisor == divisor
    assert run(spec).shape == (2, 3, *patch)
    too_odd = [size + 1 for size in patch]
    with pytest.raises(BundleError, match="must be divisible"):
        made_spec(network=options, training={"patch": too_odd})
