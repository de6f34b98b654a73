"""The bank: faults of every kind, shares as asked for, and no memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.bundles import made_spec
from support.cases import balls, made_case
from torch import nn

from medseg.bundle.spec import BundleSpec, MaskBankSpec
from medseg.training.patches import PatchBatches
from medseg.training.refinement.mask_errors import MASK_ERRORS, corrupt_mask, soften_mask
from medseg.training.refinement.mask_pool import NETWORK_INPUT, MaskPool


def chance(seed: int) -> tuple[np.random.Generator, torch.Generator]:
    return np.random.default_rng(seed), torch.Generator().manual_seed(seed)


def label_of(dims: int) -> torch.Tensor:
    label = torch.from_numpy(balls()).long()
    return label if dims == 3 else label[..., int((label > 0).sum((0, 1)).argmax())]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("fault", MASK_ERRORS, ids=lambda fault: fault.__name__)
def test_each_fault_changes_some_voxels_and_leaves_most(fault: Any, dims: int) -> None:
    label = label_of(dims)
    kept = label.clone()
    changed = 0
    for seed in range(10):
        found = fault(label, 3, *chance(seed))
        assert torch.equal(found, fault(label, 3, *chance(seed)))
        assert found.shape == label.shape
        assert found.dtype == torch.int64
        assert 0 <= int(found.min()) <= int(found.max()) <= 2
        assert (found != label).float().mean() < 0.35
        changed += not torch.equal(found, label)
    assert changed >= 8
    assert torch.equal(label, kept)


@pytest.mark.parametrize("dims", [2, 3])
def test_faults_take_away_and_add(dims: int) -> None:
    label = label_of(dims)
    lost = [
        bool(((corrupt_mask(label, 3, *chance(n)) == 0) & (label > 0)).any()) for n in range(40)
    ]
    added = [
        bool(((corrupt_mask(label, 3, *chance(n)) > 0) & (label == 0)).any()) for n in range(40)
    ]
    assert 10 < sum(lost) < 40
    assert 10 < sum(added) < 40


def test_an_empty_patch_gets_faults_or_stays_empty() -> None:
    found = [corrupt_mask(torch.zeros(8, 8, 8).long(), 3, *chance(seed)) for seed in range(20)]
    assert 0 < sum(bool(one.any()) for one in found) < 20


@pytest.mark.parametrize("dims", [2, 3])
def test_soft_masks_are_log_probabilities_that_are_never_quite_sure(dims: int) -> None:
    label = label_of(dims)
    for seed in range(10):
        logits = soften_mask(label, 3, np.random.default_rng(seed))
        assert logits.shape == (3, *label.shape)
        assert torch.allclose(logits.exp().sum(0), torch.ones(label.shape), atol=1e-5)
        assert logits.exp().max() < 1
        assert (logits.argmax(0) == label).float().mean() > 0.95


class Says(nn.Module):
    """Answers one number everywhere, so that a test sees who was asked."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.full((len(image), 3, *image.shape[2:]), self.value)


def bank_of(spec: BundleSpec, bank: MaskBankSpec, networks: int = 4) -> MaskPool:
    cases = [made_case(balls(seed=seed)) for seed in range(3)]
    device = torch.device("cpu")
    batches = PatchBatches(cases, spec.training, dims=spec.network.dims, padding=0.0, device=device)
    asked = [Says(float(n + 1)) for n in range(networks)]
    return MaskPool(spec, bank, batches, asked, steps=100, device=device)


FLAT: dict[str, Any] = {"network": {"dims": 2}, "training": {"patch": [16, 16]}}


@pytest.mark.parametrize("sections", [{}, FLAT])
def test_a_batch_depends_on_its_step_alone(sections: dict[str, Any]) -> None:
    spec = made_spec(**sections)
    bank, other = bank_of(spec, MaskBankSpec()), bank_of(spec, MaskBankSpec())
    other.batch(1)
    one, two = bank.batch(7), other.batch(7)
    assert one.keys() == {"image", "label", "given"}
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["image"], bank.batch(8)["image"])
    assert torch.equal(one[NETWORK_INPUT][:, :1], one["image"])
    assert one[NETWORK_INPUT].shape[1] == 1 + 3


def test_what_nobody_annotated_gets_a_mask_and_keeps_its_mark() -> None:
    bank = bank_of(made_spec(), MaskBankSpec(faulty=1.0, corrupted=0.0))
    spec = made_spec(labels=[{"index": 1, "name": "liver"}], data={"ignore": 2})
    assert spec.label_set.ignore_index == 2
    partly = bank_of(spec, MaskBankSpec(faulty=1.0, corrupted=0.0)).batch(3)
    assert torch.equal(partly["label"], bank.batch(3)["label"])  # 2 is a label to the other
    assert partly[NETWORK_INPUT].shape[1] == 1 + 2
    assert (partly["label"] == 2).any()


def test_masks_come_from_where_the_spec_says_in_its_shares() -> None:
    bank = bank_of(made_spec(training={"batch_size": 4}), MaskBankSpec())
    seen: dict[float, int] = {}
    for step in range(1, 101):
        for item in bank.batch(step)[NETWORK_INPUT]:
            value = float(item[1].max()) if item[1].std() == 0 else 0.0
            value = value if value > 0 else 0.0
            seen[value] = seen.get(value, 0) + 1
    assert seen[0.0] / 400 == pytest.approx(0.3, abs=0.07)
    assert seen[4.0] / 400 == pytest.approx(0.7 * 0.45, abs=0.07)
    for earlier in (1.0, 2.0, 3.0):
        assert seen[earlier] / 400 == pytest.approx(0.7 * 0.55 / 3, abs=0.05)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_images_are_corrupted_in_the_share_asked_for(share: float) -> None:
    spec = made_spec(training={"batch_size": 4})
    clean = bank_of(spec, MaskBankSpec(corrupted=0.0)).batch(3)["image"]
    found = bank_of(spec, MaskBankSpec(corrupted=share)).batch(3)["image"]
    assert torch.equal(found, clean) is (share == 0)
