"""The pool of masks: shares as asked for, and the same batch for the same step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.bundles import made_spec
from support.cases import balls, made_case
from torch import nn

from medseg.bundle.spec import BundleSpec, MaskPoolSpec
from medseg.training.patches import PatchBatches
from medseg.training.refinement.mask_pool import NETWORK_INPUT, MaskPool


class Constant(nn.Module):
    """Gives one number everywhere, so that a test sees which network was asked."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.full((len(image), 3, *image.shape[2:]), self.value)


def pool_of(
    spec: BundleSpec, pool: MaskPoolSpec, networks: int = 4
) -> MaskPool:
    cases = [made_case(balls(seed=seed)) for seed in range(3)]
    device = torch.device("cpu")
    batches = PatchBatches(
        cases, spec.training, dims=spec.network.dims, padding=0.0, device=device
    )
    constants = [Constant(float(n + 1)) for n in range(networks)]
    return MaskPool(spec, pool, batches, constants, steps=100, device=device)


FLAT: dict[str, Any] = {"network": {"dims": 2}, "training": {"patch": [16, 16]}}


@pytest.mark.parametrize("sections", [{}, FLAT])
def test_a_batch_depends_on_its_step_alone(sections: dict[str, Any]) -> None:
    spec = made_spec(**sections)
    pool, other = pool_of(spec, MaskPoolSpec()), pool_of(spec, MaskPoolSpec())
    other.batch(1)
    one, two = pool.batch(7), other.batch(7)
    assert one.keys() == {"image", "label", "network_input"}
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["image"], pool.batch(8)["image"])
    assert torch.equal(one[NETWORK_INPUT][:, :1], one["image"])
    assert one[NETWORK_INPUT].shape[1] == 1 + 3


def test_iteration_begins_with_the_first_step() -> None:
    pool = pool_of(made_spec(), MaskPoolSpec())
    pool.first = 5
    batches = iter(pool)
    for step in (5, 6):
        assert torch.equal(next(batches)["image"], pool.batch(step)["image"])
    assert len(pool) == 100


def test_patches_continue_where_the_networks_training_ended() -> None:
    spec = made_spec()
    pool = pool_of(spec, MaskPoolSpec(corrupted=0.0))
    after = pool._batches.batch(spec.training.steps + 1)
    assert torch.equal(pool.batch(1)["label"], after["label"])


def test_ignored_voxels_get_a_mask_and_keep_their_index() -> None:
    pool = pool_of(made_spec(), MaskPoolSpec(faulty=1.0, corrupted=0.0))
    spec = made_spec(labels=[{"index": 1, "name": "liver"}], data={"ignore": 2})
    assert spec.label_set.ignore_index == 2
    partly = pool_of(spec, MaskPoolSpec(faulty=1.0, corrupted=0.0)).batch(3)
    # 2 is a label to the other
    assert torch.equal(partly["label"], pool.batch(3)["label"])
    assert partly[NETWORK_INPUT].shape[1] == 1 + 2
    assert (partly["label"] == 2).any()


def test_masks_come_from_where_the_spec_says_in_its_shares() -> None:
    pool = pool_of(made_spec(training={"batch_size": 4}), MaskPoolSpec())
    seen: dict[float, int] = {}
    for step in range(1, 101):
        for item in pool.batch(step)[NETWORK_INPUT]:
            value = float(item[1].max()) if item[1].std() == 0 else 0.0
            value = value if value > 0 else 0.0
            seen[value] = seen.get(value, 0) + 1
    assert seen[0.0] / 400 == pytest.approx(0.3, abs=0.07)
    assert seen[4.0] / 400 == pytest.approx(0.7 * 0.45, abs=0.07)
    for earlier in (1.0, 2.0, 3.0):
        assert seen[earlier] / 400 == pytest.approx(0.7 * 0.55 / 3, abs=0.05)


def test_without_snapshots_all_masks_of_a_network_are_the_final_ones() -> None:
    pool = pool_of(made_spec(), MaskPoolSpec(faulty=0.0, final=0.0), networks=1)
    assert (pool.batch(1)[NETWORK_INPUT][:, 1:] == 1.0).all()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_images_are_corrupted_in_the_share_asked_for(share: float) -> None:
    spec = made_spec(training={"batch_size": 4})
    clean = pool_of(spec, MaskPoolSpec(corrupted=0.0)).batch(3)["image"]
    images = pool_of(spec, MaskPoolSpec(corrupted=share)).batch(3)["image"]
    assert torch.equal(images, clean) is (share == 0)
