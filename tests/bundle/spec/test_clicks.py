"""``training.clicks``: absent it leaves no trace, present it adds inputs, and some refuse it."""

from __future__ import annotations

from typing import Any

import pytest
from support.bundles import NESTED, made_spec

from medseg.bundle.spec_files import format_spec
from medseg.errors import BundleError
from medseg.networks.building import build_network

NETWORKS: list[dict[str, Any]] = [
    {},
    {"dims": 2},
    {"kind": "resenc", "blocks": 1},
]


def test_a_bundle_without_clicks_is_written_as_before() -> None:
    spec = made_spec()
    assert "clicks" not in format_spec(spec)
    assert spec.input_channels == 1


@pytest.mark.parametrize("network", NETWORKS)
def test_the_network_takes_three_channels_more(
    network: dict[str, Any],
) -> None:
    patch = [16, 16] if network.get("dims") == 2 else [16, 16, 16]
    spec = made_spec(network=network, training={"clicks": {}, "patch": patch})
    assert spec.input_channels == 4
    first = next(iter(build_network(spec).parameters()))
    assert first.shape[1] == 4


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        ({"refinement": {}}, "set refinement to null"),
        (NESTED, "leave regions out"),
        ({"labels": [{"index": 1, "name": "image"}]}, "rename the label"),
    ],
)
def test_what_clicks_do_not_go_with_is_named(
    sections: dict[str, Any], what: str
) -> None:
    training = {"clicks": {}, "patch": [32, 32, 32]}
    with pytest.raises(BundleError) as caught:
        made_spec(**sections, training=training)
    faults = {fault.where: fault.what for fault in caught.value.faults}
    assert what in faults["training.clicks"]
