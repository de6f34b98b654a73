"""What a network takes over from its parent, weight by weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.bundles import (
    NESTED,
    made_spec,
    pickled_trap,
    refined_bundle,
    trained_bundle,
)
from torch import nn

from medseg.bundle.bundle import Bundle, load_bundle
from medseg.bundle.spec import BundleSpec, ClicksSpec
from medseg.errors import CheckpointError
from medseg.networks.building import build_network
from medseg.training.fine_tuning import InitialWeights

NETWORKS: list[dict[str, Any]] = [
    {"kind": "unet", "channels": [4, 8, 16], "strides": [1, 2, 2]},
    {
        "kind": "unet",
        "channels": [4, 8, 16],
        "strides": [1, 2, 2],
        "residual": True,
    },
    {
        "kind": "SegResNet",
        "args": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    },
]
LIVER, KIDNEY, SPLEEN = "liver", "kidney", "spleen"
CT, PET = {"name": "CT", "modality": "CT"}, {"name": "PET", "modality": "PT"}
MORE = [{"name": "T1", "modality": "MR"}, {"name": "T2", "modality": "MR"}]


def spec_with(
    network: dict[str, Any], labels: list[str], channels: list[Any]
) -> BundleSpec:
    named = [
        {"index": index, "name": name}
        for index, name in enumerate(labels, start=1)
    ]
    # The sections of SMALL merge, so a foreign network must say it has no channels of its own.
    return made_spec(labels=named, channels=channels).model_copy(
        update={"network": made_network(network)}
    )


def made_network(network: dict[str, Any]) -> Any:
    from medseg.bundle.bundle import parse_spec

    smallest = {
        "name": "n",
        "channels": [CT],
        "labels": [{"index": 1, "name": LIVER}],
        "training": {"patch": [16, 16, 16]},
    }
    return parse_spec(smallest | {"network": network}).network


def parent_with(folder: Path, spec: BundleSpec) -> Bundle:
    return load_bundle(trained_bundle(folder, spec, seed=1))


def grown(spec: BundleSpec, parent: Bundle, seed: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    network = build_network(spec)
    InitialWeights(spec, parent).load_into(network)
    return network.eval()


def answer(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(image)


def alone(spec: BundleSpec, parent: Bundle) -> nn.Module:
    network = build_network(spec, supervised=False)
    network.load_state_dict(torch.load(parent.weights, weights_only=True))
    return network.eval()


@pytest.mark.parametrize(
    "network", NETWORKS, ids=["unet", "residual", "SegResNet"]
)
def test_the_child_first_predicts_what_its_parent_does(
    tmp_path: Path, network: dict[str, Any]
) -> None:
    old = spec_with(network, [LIVER, KIDNEY], [CT])
    parent = parent_with(tmp_path, old)
    # Labels change places, one is new; a channel is new and comes first.
    new = spec_with(network, [SPLEEN, KIDNEY, LIVER], [PET, CT])
    image = torch.randn(
        1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(0)
    )
    before = answer(alone(old, parent), image[:, 1:])
    after = answer(grown(new, parent), image)
    torch.testing.assert_close(after[:, [0, 3, 2]], before[:, [0, 1, 2]])
    # The new label knows nothing, and another seed makes another of it.
    other = answer(grown(new, parent, seed=3), image)
    assert not torch.allclose(after[:, 1], other[:, 1])
    torch.testing.assert_close(after[:, 2:], other[:, 2:])


@pytest.mark.parametrize(
    "network", NETWORKS, ids=["unet", "residual", "SegResNet"]
)
def test_an_interactive_child_first_predicts_what_its_parent_does(
    tmp_path: Path, network: dict[str, Any]
) -> None:
    if network["kind"] == "unet":
        # MONAI's residual blocks have no layer for four channels of four inputs.
        network = network | {"channels": [8, 8, 16]}
    old = spec_with(network, [LIVER, KIDNEY], [CT])
    parent = parent_with(tmp_path / "automatic", old)
    new = interactive(old)
    image = torch.randn(
        1, 4, 16, 16, 16, generator=torch.Generator().manual_seed(0)
    )
    before = answer(alone(old, parent), image[:, :1])
    torch.testing.assert_close(answer(grown(new, parent), image), before)
    # From an interactive parent clicks are taken over, too, and to an automatic one they are not.
    clicked = parent_with(tmp_path / "interactive", new)
    taken_over = answer(grown(new, clicked), image)
    torch.testing.assert_close(taken_over, answer(alone(new, clicked), image))
    empty = image.clone()
    empty[:, 1:] = 0
    torch.testing.assert_close(
        answer(grown(old, clicked), image[:, :1]),
        answer(alone(new, clicked), empty),
    )


def test_a_layer_of_the_parent_is_never_dropped_in_silence(
    tmp_path: Path,
) -> None:
    # Four channels of one input take a projection; four of four, with the clicks', take none.
    old = spec_with(NETWORKS[1], [LIVER, KIDNEY], [CT])
    parent = parent_with(tmp_path, old)
    with pytest.raises(CheckpointError, match="a layer that this") as refused:
        InitialWeights(interactive(old), parent)
    assert "conv3" in (refused.value.detail or "")
    four = spec_with(NETWORKS[1], [LIVER, KIDNEY], [CT, PET, *MORE])
    with pytest.raises(CheckpointError, match="a layer that this"):
        InitialWeights(four, parent)


def interactive(spec: BundleSpec) -> BundleSpec:
    training = spec.training.model_copy(update={"clicks": ClicksSpec()})
    return spec.model_copy(update={"training": training})


def test_equal_counts_do_not_hide_that_labels_changed_places(
    tmp_path: Path,
) -> None:
    old = spec_with(NETWORKS[0], [LIVER, KIDNEY], [CT])
    parent = parent_with(tmp_path, old)
    new = spec_with(NETWORKS[0], [KIDNEY, LIVER], [CT])
    image = torch.randn(
        1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0)
    )
    before, after = (
        answer(alone(old, parent), image),
        answer(grown(new, parent), image),
    )
    torch.testing.assert_close(after, before[:, [0, 2, 1]])


def test_a_dropped_channel_is_as_if_it_showed_its_mean(tmp_path: Path) -> None:
    old = spec_with(NETWORKS[0], [LIVER], [CT, PET])
    parent = parent_with(tmp_path, old)
    new = spec_with(NETWORKS[0], [LIVER], [PET])
    image = torch.randn(
        1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0)
    )
    both = torch.cat([torch.zeros_like(image), image], dim=1)
    torch.testing.assert_close(
        answer(grown(new, parent), image), answer(alone(old, parent), both)
    )


def test_channels_without_a_source_are_newly_initialised(
    tmp_path: Path,
) -> None:
    mr = [{"name": name, "modality": "MR"} for name in ("A", "B")]
    parent = parent_with(tmp_path, spec_with(NETWORKS[0], [LIVER], [CT, PET]))
    network = grown(spec_with(NETWORKS[0], [LIVER], mr), parent)
    first = dict(network.named_parameters())["input_block.conv1.conv.weight"]
    assert bool((first != 0).all())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"channels": [4, 8, 24]}, "network.channels"),
        ({"residual": True}, "network.residual: false → true"),
        (
            {"channels": [4, 8, 16, 16], "strides": [1, 2, 2, 2]},
            "network.strides",
        ),
        ({"kind": "SegResNet"}, "network.kind"),
    ],
)
def test_a_network_built_differently_is_refused_and_the_field_named(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    parent = parent_with(tmp_path, spec_with(NETWORKS[0], [LIVER], [CT]))
    other = change if "kind" in change else NETWORKS[0] | change
    with pytest.raises(CheckpointError, match=field):
        InitialWeights(spec_with(other, [LIVER], [CT]), parent)


def test_weights_with_classes_on_two_axes_start_from_both(
    tmp_path: Path,
) -> None:
    meets = {
        "kind": "UNet",
        "args": {"channels": [4, 8], "strides": [2], "num_res_units": 1},
    }
    parent = parent_with(tmp_path, spec_with(meets, [LIVER, KIDNEY], [CT]))
    child = dict(
        grown(
            spec_with(meets, [KIDNEY, SPLEEN], [CT]), parent
        ).named_parameters()
    )
    name = "model.2.1.conv.unit0.conv.weight"
    before = torch.load(parent.weights, weights_only=True)[name]
    assert child[name].shape == before.shape == (3, 3, 3, 3, 3)
    assert torch.equal(child[name][:2, :2], before[[0, 2]][:, [0, 2]])
    assert not torch.equal(child[name][2], before[1])


def test_dropout_and_deep_supervision_may_differ_from_the_parents(
    tmp_path: Path,
) -> None:
    parent = parent_with(tmp_path, spec_with(NETWORKS[0], [LIVER], [CT]))
    dropped = NETWORKS[0] | {"dropout": 0.1, "deep_supervision": False}
    child = grown(spec_with(dropped, [LIVER], [CT]), parent).state_dict()
    weights = torch.load(parent.weights, weights_only=True)
    assert child.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(child[name], value), name


def test_weights_that_are_code_are_not_opened(tmp_path: Path) -> None:
    spec = spec_with(NETWORKS[0], [LIVER], [CT])
    parent = parent_with(tmp_path, spec)
    canary = tmp_path / "canary"
    parent.weights.write_bytes(pickled_trap(canary))
    with pytest.raises(CheckpointError):
        InitialWeights(spec, parent)
    assert not canary.exists()


def test_a_child_with_regions_first_predicts_them_as_its_parent(
    tmp_path: Path,
) -> None:
    old = made_spec(**NESTED)
    parent = parent_with(tmp_path, old)
    new = made_spec(
        labels=NESTED["labels"][:2],
        regions=[
            {"name": "whole", "labels": ["edema", "core"]},
            {"name": "middle", "labels": ["core"]},
        ],
    )
    image = torch.randn(
        1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0)
    )
    before, after = (
        answer(alone(old, parent), image),
        answer(grown(new, parent), image),
    )
    assert after.shape[1] == 2
    torch.testing.assert_close(after[:, 0], before[:, 0])
    # A region of another name knows nothing.
    other = answer(grown(new, parent, seed=3), image)
    assert not torch.allclose(after[:, 1], other[:, 1])


def test_labels_do_not_start_from_regions_but_the_other_layers_do(
    tmp_path: Path,
) -> None:
    parent = parent_with(tmp_path, made_spec(**NESTED))
    spec = made_spec()
    one, other = grown(spec, parent, seed=2), grown(spec, parent, seed=3)
    same = {
        name: torch.equal(value, other.state_dict()[name])
        for name, value in one.state_dict().items()
    }
    weights = torch.load(parent.weights, weights_only=True)
    inherited = {name for name in weights if same[name]}
    assert {
        name
        for name in weights
        if name.startswith("output_block") and name.endswith("weight")
    } & inherited == set()
    assert any("input_block" in name for name in inherited)


def test_a_child_of_a_refined_bundle_starts_from_the_network_without_its_refiner(
    tmp_path: Path,
) -> None:
    old = made_spec(refinement={"adversarial_weight": 0})
    refined = load_bundle(
        refined_bundle(tmp_path / "refined", old, applied=True, seed=1)
    )
    plain = parent_with(tmp_path / "plain", old)
    image = torch.randn(
        1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0)
    )
    after = answer(grown(made_spec(), refined), image)
    torch.testing.assert_close(after, answer(alone(old, plain), image))
