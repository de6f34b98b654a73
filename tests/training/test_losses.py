"""The loss against arithmetic written out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.bundles import NESTED, made_spec
from support.cases import balls, made_case
from support.plugins import install_package

from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec_files import format_spec
from medseg.errors import BundleError
from medseg.events import Event, StepDone
from medseg.testing.losses import LossContract
from medseg.training.learner import Callbacks, Learner
from medseg.training.losses import (
    LOSSES,
    DeepSupervisionLoss,
    LossTerms,
    build_dice_ce,
    build_loss,
    check_loss,
)


class TestDiceCE(LossContract):
    """The shipped loss keeps the contract that others must keep."""

    build = staticmethod(build_dice_ce)


def ignoring() -> DeepSupervisionLoss:
    """Return the loss of two labels whose ignore index is 3."""
    return build_loss(made_spec(data={"ignore": 9}))


def by_hand(logits: torch.Tensor, label: torch.Tensor) -> tuple[float, float]:
    """Return soft Dice (batch pooled, no background) and cross-entropy, voxel by voxel."""
    classes = logits.shape[1]
    share = logits.double().exp() / logits.double().exp().sum(
        dim=1, keepdim=True
    )
    ce, voxels = 0.0, 0
    both, predicted, true = [0.0] * classes, [0.0] * classes, [0.0] * classes
    for place in torch.cartesian_prod(
        *[torch.arange(n) for n in label[:, 0].shape]
    ):
        batch, *where = place.tolist()
        wanted = int(label[(batch, 0, *where)])
        ce -= math.log(float(share[(batch, wanted, *where)]))
        voxels += 1
        for index in range(classes):
            p = float(share[(batch, index, *where)])
            both[index] += p * (index == wanted)
            predicted[index] += p
            true[index] += index == wanted
    dice = [
        1 - (2 * both[n] + 1e-5) / (predicted[n] + true[n] + 1e-5)
        for n in range(1, classes)
    ]
    return sum(dice) / len(dice), ce / voxels


@pytest.mark.parametrize("size", [(4, 3), (3, 4, 2)])
@pytest.mark.parametrize(
    ("dice_weight", "ce_weight"), [(1.0, 1.0), (0.0, 1.0), (2.0, 0.5)]
)
def test_one_level(
    size: tuple[int, ...], dice_weight: float, ce_weight: float
) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, *size), torch.randint(0, 3, (2, 1, *size))
    loss = build_loss(
        made_spec(training={"dice_weight": dice_weight, "ce_weight": ce_weight})
    )
    dice, ce = by_hand(logits, label)
    found = loss([logits], label)
    assert float(found) == pytest.approx(
        dice_weight * dice + ce_weight * ce, rel=1e-5
    )
    assert float(loss.parts["dice"]) == pytest.approx(dice, rel=1e-5)
    assert float(loss.parts["ce"]) == pytest.approx(ce, rel=1e-5)


def test_coarser_levels_weigh_half_each_and_see_every_second_voxel() -> None:
    torch.manual_seed(1)
    label = torch.randint(0, 3, (2, 1, 8, 8))
    levels = [torch.randn(2, 3, n, n) for n in (8, 4, 2)]
    loss = build_loss(made_spec())
    found = float(loss(levels, label))
    # The middle of each coarse voxel lies on the fine voxel right after the middle.
    coarse = [label, label[..., 1::2, 1::2], label[..., 2::4, 2::4]]
    scores = [sum(by_hand(*pair)) for pair in zip(levels, coarse, strict=True)]
    assert found == pytest.approx(
        (4 * scores[0] + 2 * scores[1] + scores[2]) / 7, rel=1e-5
    )
    assert float(loss.parts["ce"]) == pytest.approx(
        by_hand(levels[0], label)[1], rel=1e-5
    )


def test_a_perfect_prediction_costs_nothing_and_half_precision_is_scored_in_full() -> (
    None
):
    label = torch.randint(
        0, 3, (1, 1, 8, 8, 8), generator=torch.Generator().manual_seed(0)
    )
    one_hot = torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1).float()
    loss = build_loss(made_spec())
    assert float(loss([60 * one_hot], label)) < 1e-4
    half = loss([(60 * one_hot).half()], label)
    assert half.dtype == torch.float32
    assert float(half) < 1e-4


def test_labels_of_two_hundred_and_more_keep_their_index_at_coarse_levels() -> (
    None
):
    label = torch.full((1, 1, 4, 4), 299)
    logits = torch.full((1, 300, 2, 2), -50.0)
    logits[:, 299] = 50.0
    labels = [{"index": index, "name": str(index)} for index in range(1, 300)]
    loss = build_loss(made_spec(training={"dice_weight": 0}, labels=labels))
    assert float(
        loss([torch.zeros(1, 300, 4, 4), logits], label)
    ) == pytest.approx(2 / 3 * math.log(300), rel=1e-4)


def test_gradients_reach_every_level() -> None:
    levels = [torch.randn(1, 3, n, n, requires_grad=True) for n in (8, 4)]
    label = torch.randint(0, 3, (1, 1, 8, 8))
    build_loss(made_spec())(levels, label).backward()
    assert all(
        level.grad is not None and level.grad.abs().sum() > 0
        for level in levels
    )


@pytest.mark.parametrize("size", [(4, 4), (4, 4, 2)])
def test_ignored_voxels_are_in_no_part_of_the_loss(
    size: tuple[int, ...],
) -> None:
    torch.manual_seed(3)
    label = torch.randint(0, 4, (2, 1, *size))
    levels = [
        torch.randn(2, 3, *size),
        torch.randn(2, 3, *[n // 2 for n in size]),
    ]
    for logits in levels:
        logits.requires_grad_(True)
    loss = ignoring()
    found = loss(levels, label)
    found.backward()
    here = (label == 3).expand(-1, 3, *[-1] * len(size))
    assert here.any()
    assert not levels[0].grad[here].any()
    assert levels[0].grad[~here].any()
    moved = levels[0].detach() + 5 * torch.randn_like(levels[0]) * here
    assert loss([moved, levels[1]], label).item() == pytest.approx(
        found.item(), rel=1e-6
    )


def test_the_loss_is_that_of_the_other_voxels_alone() -> None:
    torch.manual_seed(4)
    logits, label = torch.randn(2, 3, 6, 4), torch.randint(0, 3, (2, 1, 6, 4))
    dice, ce = by_hand(logits[:, :, :3], label[:, :, :3])
    label[:, :, 3:] = 3
    loss = ignoring()
    assert float(loss([logits], label)) == pytest.approx(dice + ce, rel=1e-5)
    assert float(loss.parts["ce"]) == pytest.approx(ce, rel=1e-5)


def test_a_batch_of_ignored_voxels_teaches_nothing() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = ignoring()
    found = loss([logits], torch.full((1, 1, 4, 4), 3))
    found.backward()
    assert float(found) == pytest.approx(0, abs=1e-6)
    assert not logits.grad.any()


@pytest.mark.parametrize("ignored", [None, 3])
def test_classes_weigh_what_they_are_given(ignored: int | None) -> None:
    torch.manual_seed(5)
    logits, label = (
        torch.randn(2, 3, 4, 4),
        torch.randint(0, 4 if ignored else 3, (2, 1, 4, 4)),
    )
    weights = (0.5, 0.4, 1.6)
    given = {"background": 0.5, "liver": 0.4, "kidney": 1.6}
    spec = made_spec(
        data={"ignore": 9 if ignored else None},
        training={"class_weights": given},
    )
    assert spec.class_weights == weights
    loss = build_loss(spec)
    known = (label != 3)[:, 0]
    share = logits.softmax(dim=1)
    ce = dice = mass = 0.0
    for index, weight in enumerate(weights):
        true, made = (label[:, 0] == index) & known, share[:, index] * known
        ce -= weight * float(share[:, index][true].log().sum())
        mass += weight * int(true.sum())
        if index:
            both = 2 * float(made[true].sum()) + 1e-5
            dice += (
                weight
                / 2
                * (1 - both / (float(made.sum()) + int(true.sum()) + 1e-5))
            )
    assert float(loss([logits], label)) == pytest.approx(
        dice + ce / mass, rel=1e-5
    )


def test_equal_weights_change_nothing() -> None:
    torch.manual_seed(6)
    logits, label = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 1, 4, 4))
    plain = build_loss(made_spec())([logits], label)
    equal = {"background": 2.0, "liver": 2.0, "kidney": 2.0}
    weighted = build_loss(made_spec(training={"class_weights": equal}))(
        [logits], label
    )
    assert float(weighted) == pytest.approx(float(plain), rel=1e-6)


def regions_by_hand(
    logits: torch.Tensor,
    label: torch.Tensor,
    weights: tuple[float, ...],
    ignored: int | None,
) -> tuple[float, float]:
    """Return Dice loss and binary cross-entropy of nested regions: 1 + 2 + 3, 2 + 3, and 3."""
    held = [{1, 2, 3}, {2, 3}, {3}]
    dice, ce = 0.0, 0.0
    for region, (members, weight) in enumerate(zip(held, weights, strict=True)):
        both = predicted = true = entropy = voxels = 0.0
        for place in torch.cartesian_prod(
            *[torch.arange(n) for n in label[:, 0].shape]
        ):
            batch, *where = place.tolist()
            wanted = int(label[(batch, 0, *where)])
            if wanted == ignored:
                continue
            p = 1 / (1 + math.exp(-float(logits[(batch, region, *where)])))
            is_there = wanted in members
            both, predicted, true = (
                both + p * is_there,
                predicted + p,
                true + is_there,
            )
            entropy -= math.log(p if is_there else 1 - p)
            voxels += 1
        dice += weight * (1 - (2 * both + 1e-5) / (predicted + true + 1e-5)) / 3
        ce += weight * entropy / voxels / 3
    return dice, ce


@pytest.mark.parametrize("ignore", [None, 9])
@pytest.mark.parametrize("weights", [None, {"enhancing": 4, "whole": 2}])
def test_each_region_has_its_own_sigmoid(
    weights: dict[str, float] | None, ignore: int | None
) -> None:
    spec = made_spec(
        **NESTED, data={"ignore": ignore}, training={"class_weights": weights}
    )
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 3, 4, 2)
    label = torch.randint(0, 5 if ignore else 4, (2, 1, 3, 4, 2))
    loss = build_loss(spec)
    found = float(loss([logits], label))
    dice, ce = regions_by_hand(
        logits, label, spec.class_weights or (1, 1, 1), 4
    )
    assert found == pytest.approx(dice + ce, rel=1e-5)
    assert float(loss.parts["dice"]) == pytest.approx(dice, rel=1e-5)
    assert float(loss.parts["ce"]) == pytest.approx(ce, rel=1e-5)


def test_coarse_levels_of_regions_weigh_half_each() -> None:
    torch.manual_seed(1)
    label = torch.randint(0, 4, (2, 1, 4, 4))
    levels = [torch.randn(2, 3, n, n) for n in (4, 2)]
    found = float(build_loss(made_spec(**NESTED))(levels, label))
    fine, coarse = (
        sum(regions_by_hand(logits, seen, (1, 1, 1), None))
        for logits, seen in zip(
            levels, (label, label[..., 1::2, 1::2]), strict=True
        )
    )
    assert found == pytest.approx((2 * fine + coarse) / 3, rel=1e-5)


def test_ignored_voxels_alone_teach_regions_nothing() -> None:
    spec = made_spec(**NESTED, data={"ignore": 9})
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = build_loss(spec)([logits], torch.full((1, 1, 4, 4), 4))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert not logits.grad.any()


# --- losses of installed packages ---

TVERSKY = """
import torch
from medseg.training.losses import LossTerms

class Tversky:
    def __init__(self, context):
        if context.labels.has_regions:
            raise ValueError("regions are not supported")
        self.channels = context.labels.channels

    def __call__(self, logits, label):
        one_hot = torch.nn.functional.one_hot(label[:, 0], self.channels).movedim(-1, 1)
        share = (logits.softmax(dim=1) * one_hot).mean()
        return LossTerms(1 - share, {"overlap": share})
"""


@pytest.fixture
def tversky(site: Path) -> Iterator[None]:
    """An installed package that adds the loss ``tversky``."""
    points = {"medseg.losses": {"tversky": "loss_package:Tversky"}}
    install_package(site, "loss_package", points, TVERSKY)
    LOSSES.refresh()
    yield
    LOSSES.refresh()


@pytest.mark.usefixtures("tversky")
def test_a_bundle_may_name_the_loss_of_an_installed_package() -> None:
    spec = made_spec(training={"loss": "tversky"})
    check_loss(spec)
    loss = build_loss(spec)
    logits = torch.zeros(1, 3, 4, 4, requires_grad=True)
    total = loss([logits], torch.ones(1, 1, 4, 4).long())
    assert total.item() == pytest.approx(1 - 1 / 9)
    assert loss.parts["overlap"].item() == pytest.approx(1 / 9)
    assert parse_spec(json.loads(format_spec(spec))).training == spec.training


@pytest.mark.usefixtures("tversky")
def test_a_network_learns_by_the_loss_of_an_installed_package() -> None:
    spec = made_spec(training={"loss": "tversky", "steps": 2})
    events: list[Event] = []
    cases = [made_case(balls(seed=seed)) for seed in range(2)]
    learner = Learner(spec, cases, torch.device("cpu"), [events.append])
    learner.learn(Callbacks(validate=lambda step: True, save=lambda step: None))
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [event.parts.keys() for event in steps] == [{"overlap"}, {"overlap"}]


@pytest.mark.usefixtures("tversky")
def test_labels_that_a_loss_refuses_are_a_fault_of_the_bundle() -> None:
    with pytest.raises(BundleError) as caught:
        check_loss(made_spec(**NESTED, training={"loss": "tversky"}))
    (fault,) = caught.value.faults
    assert fault.where == "training.loss"
    assert "'tversky' cannot score this bundle's labels" in fault.what
    assert fault.detail == "regions are not supported"


def test_a_loss_that_is_not_installed_is_refused_with_those_that_are() -> None:
    with pytest.raises(BundleError) as caught:
        check_loss(made_spec(training={"loss": "focal"}))
    (fault,) = caught.value.faults
    assert fault.where == "training.loss"
    assert "no loss 'focal'" in fault.what
    assert "dice_ce" in fault.what


def test_a_bundle_that_names_no_loss_keeps_its_json() -> None:
    assert "loss" not in json.loads(format_spec(made_spec()))["training"]
    named = made_spec(training={"loss": "dice_ce"})
    assert format_spec(named) == format_spec(made_spec())


def test_each_level_is_scored_with_the_weight_of_its_depth() -> None:
    def count_voxels(logits: torch.Tensor, label: torch.Tensor) -> LossTerms:
        assert logits.dtype == torch.float32
        assert logits.shape[2:] == label.shape[2:]
        voxels = torch.tensor(float(label.numel()))
        return LossTerms(voxels, {"voxels": voxels})

    loss = DeepSupervisionLoss(count_voxels)
    levels = [torch.zeros(1, 3, n, n).half() for n in (4, 2, 1)]
    total = loss(levels, torch.zeros(1, 1, 4, 4).long())
    assert total.item() == pytest.approx((4 * 16 + 2 * 4 + 1 * 1) / 7)
    assert loss.parts == {"voxels": torch.tensor(16.0)}
