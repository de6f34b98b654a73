"""The refiner: built from data, changes nothing at first, and answers both estimates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.bundles import made_spec, refined_bundle
from support.scans import write_volumes

from medseg import Segmenter
from medseg.bundle.bundle import load_bundle
from medseg.bundle.spec import BundleSpec
from medseg.errors import CheckpointError
from medseg.io import read_image
from medseg.networks.building import build_network
from medseg.networks.critic import Critic
from medseg.networks.loading import get_output_layout
from medseg.networks.refiner import (
    build_refined,
    build_refiner,
    get_trainable_part,
    load_refined,
    merge_weights,
    select_coarse_weights,
)

FLAT: dict[str, Any] = {"network": {"dims": 2}, "training": {"patch": [32, 24]}}
DIMS = {3: {}, 2: FLAT}


def spec_of(dims: int, **refinement: Any) -> BundleSpec:
    return made_spec(**DIMS[dims], refinement=refinement)


def patch_of(spec: BundleSpec) -> torch.Tensor:
    torch.manual_seed(3)
    return torch.randn(2, len(spec.channels), *spec.training.patch)


@pytest.mark.parametrize("dims", [2, 3])
def test_an_untrained_refiner_changes_nothing(dims: int) -> None:
    spec = spec_of(dims)
    network = build_refined(spec, both=True).eval()
    image = patch_of(spec)
    coarse, refined = network(image).chunk(2, dim=1)
    assert torch.equal(coarse, refined)
    assert torch.equal(coarse, network[0].submodule(image))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_answer_is_the_logits_and_what_r_says_of_image_and_probabilities(
    dims: int,
) -> None:
    spec = spec_of(dims)
    refining = build_refiner(spec).eval()
    unet, scale = get_trainable_part(refining)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter)
    image, logits = patch_of(spec), torch.randn(2, 3, *spec.training.patch)
    said = unet(torch.cat([image, logits.softmax(dim=1)], dim=1))
    found = refining(torch.cat([image, logits], dim=1))
    assert torch.allclose(found, logits + 0.1 * said, atol=1e-4)
    assert scale.weight.flatten().tolist() == pytest.approx([0.1] * 3)


def test_only_r_and_its_scale_learn() -> None:
    refining = build_refiner(spec_of(3))
    learning = {id(one) for one in refining.parameters() if one.requires_grad}
    assert learning == {
        id(one) for one in get_trainable_part(refining).parameters()
    }


@pytest.mark.parametrize("patch", [[16, 16, 4], [12, 16, 20], [40, 56, 40]])
def test_any_patch_of_the_network_passes(patch: list[int]) -> None:
    spec = made_spec(
        network={"strides": [1, [2, 2, 1], [2, 2, 1]]},
        training={"patch": patch},
        refinement={"adversarial_weight": 0},
    )
    assert build_refined(spec)(torch.zeros(1, 1, *patch)).shape[2:] == tuple(
        patch
    )


def test_weights_go_in_and_the_networks_own_come_out() -> None:
    spec = spec_of(3)
    coarse = build_network(spec, supervised=False).state_dict()
    refiner = get_trainable_part(build_refiner(spec)).state_dict()
    whole = merge_weights(spec, coarse, refiner)
    again = select_coarse_weights(whole)
    assert again.keys() == coarse.keys()
    assert all(
        torch.equal(again[name], value) for name, value in coarse.items()
    )
    assert select_coarse_weights(coarse).keys() == coarse.keys()
    with pytest.raises(CheckpointError, match="of its refiner"):
        load_refined(build_refined(spec), coarse, {"other": torch.zeros(1)})


@pytest.mark.parametrize("applied", [True, False])
def test_labels_come_from_the_estimate_that_validation_chose(
    applied: bool, tmp_path: Path
) -> None:
    spec = spec_of(3, adversarial_weight=0)
    refined = refined_bundle(tmp_path / "refined", spec, applied=applied)
    other = refined_bundle(tmp_path / "other", spec, applied=not applied)
    answer = get_output_layout(load_bundle(refined))
    assert (answer.channels, answer.chosen) == (6, int(applied))
    write_volumes(tmp_path / "scans", 1)
    volume = read_image(sorted((tmp_path / "scans").iterdir())[0])
    one, two = (
        Segmenter(bundle, "cpu").segment(volume).labels
        for bundle in (refined, other)
    )
    assert not np.array_equal(one, two)
    # A bundle without the refiner's file, but the network's own weights, says the coarse labels.
    plain = refined_bundle(tmp_path / "plain", spec, applied=False)
    (plain / "models" / "refiner.pt").unlink()
    coarse = Segmenter(plain, "cpu").segment(volume).labels
    assert np.array_equal(coarse, two if applied else one)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("spectral", [True, False])
def test_a_critic_scores_patches_and_shows_its_feature_maps(
    dims: int, spectral: bool
) -> None:
    spec = spec_of(dims, critic={"spectral_norm": spectral})
    assert spec.refinement is not None
    critic = Critic(spec, spec.refinement)
    mask = torch.rand(2, 3, *spec.training.patch)
    maps = critic(patch_of(spec), mask)
    assert maps[-1].shape[:2] == (2, 1)
    assert len(maps) == {2: 5, 3: 4}[dims]
    if spectral:
        for _ in range(50):
            critic(patch_of(spec), mask)
        weight = critic.discriminator.initial_conv.conv.weight
        assert torch.linalg.matrix_norm(
            weight.flatten(1), ord=2
        ).item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("dims", "patch"), [(3, [12, 16, 12]), (2, [24, 32])])
def test_the_smallest_patch_a_critic_takes_is_what_the_spec_says(
    dims: int, patch: list[int]
) -> None:
    spec = made_spec(
        network={"dims": dims}, training={"patch": patch}, refinement={}
    )
    assert spec.refinement is not None
    assert spec.refinement.smallest_patch(dims) == min(patch)
    critic = Critic(spec, spec.refinement)
    assert (
        critic(torch.zeros(2, 1, *patch), torch.zeros(2, 3, *patch))[-1].numel()
        > 0
    )


def test_a_bundle_whose_refined_masks_are_used_says_if_the_refiner_is_gone(
    tmp_path: Path,
) -> None:
    bundle = refined_bundle(
        tmp_path, spec_of(3, adversarial_weight=0), applied=True
    )
    (bundle / "models" / "refiner.pt").unlink()
    with pytest.raises(CheckpointError, match=r"refiner\.pt"):
        Segmenter(bundle, "cpu")
