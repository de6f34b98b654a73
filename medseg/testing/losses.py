"""The contract of a loss (``medseg.training.losses.LevelLoss``), as a test suite to subclass.

A package that adds a loss tests it like this::

    from medseg.testing.losses import LossContract

    class TestMyLoss(LossContract):
        build = staticmethod(MyLoss)
"""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch.nn import functional

from medseg.labels import Label, LabelSet, Region
from medseg.training.losses import (
    LevelLoss,
    LossContext,
    LossFactory,
    LossTerms,
)

_SIZES = [(9, 8), (7, 6, 5)]
"""2D and 3D; the sizes differ, so that mixed-up axes are noticed."""

_RESERVED = ("critic", "adversarial")
"""How the names of parts must not begin: refinement uses them."""


class LossContract:
    """What every loss promises; subclass it as ``Test…`` in a test module.

    Attributes:
        build: The function or class under test: a ``LossContext`` → a loss. A function needs
            ``staticmethod``.
        takes_regions: Whether it scores regions, which overlap; if not, it must refuse them with
            a ``ValueError``.
    """

    build: ClassVar[LossFactory]
    takes_regions: ClassVar[bool] = True

    def build_loss(
        self,
        labels: int = 2,
        *,
        ignore: bool = False,
        weights: tuple[float, ...] | None = None,
    ) -> LevelLoss:
        """Build the loss of labels that exclude each other.

        Args:
            labels: How many, background not counted.
            ignore: Whether there is an ignore index; it is ``labels + 1``.
            weights: Of background and each label.
        """
        return type(self).build(
            LossContext(_label_set(labels, ignore=ignore), weights)
        )

    @pytest.mark.parametrize("size", _SIZES)
    @pytest.mark.parametrize("labels", [1, 5])
    def test_loss_is_a_finite_scalar_with_a_gradient(
        self, labels: int, size: tuple[int, ...]
    ) -> None:
        logits, label = _random_batch(labels, size)
        total = self.build_loss(labels)(logits, label).total
        assert total.shape == ()
        assert total.dtype == torch.float32
        assert torch.isfinite(total)
        gradient = _gradient(total, logits)
        assert torch.isfinite(gradient).all()
        for channel in range(labels + 1):
            assert gradient[:, channel].any(), (
                "no gradient reaches this channel"
            )

    def test_parts_are_named_scalars(self) -> None:
        logits, label = _random_batch(2, _SIZES[0])
        terms = self.build_loss()(logits, label)
        assert isinstance(terms, LossTerms)
        for name, part in terms.parts.items():
            assert name
            assert not name.startswith(_RESERVED), "this name is taken"
            assert part.shape == ()
            assert torch.isfinite(part)

    def test_loss_depends_on_its_inputs_alone(self) -> None:
        logits, label = _random_batch(2, _SIZES[1])
        kept_logits, kept_label = logits.detach().clone(), label.clone()
        random_state = torch.random.get_rng_state()
        loss = self.build_loss()
        first = loss(logits, label).total
        loss(torch.flip(logits, [0]), label)
        assert torch.equal(loss(logits, label).total, first), (
            "a loss must not remember"
        )
        assert torch.equal(logits, kept_logits)
        assert torch.equal(label, kept_label)
        assert torch.equal(torch.random.get_rng_state(), random_state), (
            "no random numbers"
        )

    @pytest.mark.parametrize("size", _SIZES)
    def test_a_perfect_prediction_costs_less_than_a_wrong_one(
        self, size: tuple[int, ...]
    ) -> None:
        _, label = _random_batch(2, size)
        perfect = _certain_logits(label, 3)
        wrong = perfect.roll(1, dims=1)
        loss = self.build_loss()
        undecided = torch.zeros_like(perfect)
        assert loss(perfect, label).total < loss(undecided, label).total
        assert loss(undecided, label).total < loss(wrong, label).total

    def test_following_the_gradient_lowers_the_loss(self) -> None:
        logits, label = _random_batch(2, _SIZES[0])
        loss = self.build_loss()
        before = loss(logits, label).total
        optimizer = torch.optim.Adam([logits], lr=0.1)
        for _ in range(20):
            optimizer.zero_grad()
            loss(logits, label).total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        assert loss(logits, label).total < before

    @pytest.mark.parametrize("size", _SIZES)
    @pytest.mark.parametrize("weights", [None, (0.5, 0.4, 1.6)])
    def test_ignored_voxels_do_not_count(
        self, size: tuple[int, ...], weights: tuple[float, ...] | None
    ) -> None:
        logits, label = _random_batch(2, size)
        label[..., :2] = 3
        loss = self.build_loss(ignore=True, weights=weights)
        total = loss(logits, label).total
        gradient = _gradient(total, logits)
        assert not gradient[..., :2].any(), "ignored voxels have a gradient"
        assert gradient[..., 2:].any()
        changed = logits.detach().clone()
        changed[..., :2] += torch.linspace(
            -5, 5, changed[..., :2].numel()
        ).view_as(changed[..., :2])
        assert torch.allclose(
            loss(changed, label).total, total, rtol=1e-5, atol=1e-6
        )

    def test_a_batch_of_ignored_voxels_alone_teaches_nothing(self) -> None:
        logits, label = _random_batch(2, _SIZES[0])
        total = self.build_loss(ignore=True)(
            logits, torch.full_like(label, 3)
        ).total
        assert torch.isfinite(total)
        assert not _gradient(total, logits).any()

    def test_class_weights_are_taken(self) -> None:
        logits, label = _random_batch(2, _SIZES[0])
        weighted = self.build_loss(weights=(0.5, 0.4, 1.6))(logits, label).total
        assert torch.isfinite(weighted)
        assert _gradient(weighted, logits).any()

    @pytest.mark.parametrize("size", _SIZES)
    def test_regions_are_scored_or_refused(self, size: tuple[int, ...]) -> None:
        context = LossContext(_region_set())
        if not self.takes_regions:
            with pytest.raises(ValueError, match=r".+"):
                type(self).build(context)
            return
        loss = type(self).build(context)
        logits, label = _random_batch(2, size, channels=2)
        total = loss(logits, label).total
        assert total.shape == ()
        assert _gradient(total, logits).any()
        whole, inner = label > 0, label == 2
        perfect = 20.0 * (2 * torch.cat([whole, inner], dim=1).float() - 1)
        assert loss(perfect, label).total < loss(-perfect, label).total

    def test_regions_leave_ignored_voxels_out(self) -> None:
        if not self.takes_regions:
            pytest.skip("this loss refuses regions")
        loss = type(self).build(LossContext(_region_set(ignore=True)))
        logits, label = _random_batch(2, _SIZES[0], channels=2)
        label[..., :2] = 3
        gradient = _gradient(loss(logits, label).total, logits)
        assert not gradient[..., :2].any(), "ignored voxels have a gradient"
        assert gradient[..., 2:].any()


def _label_set(count: int, *, ignore: bool = False) -> LabelSet:
    labels = []
    for index in range(1, count + 1):
        labels.append(Label(index, f"label {index}", index, (0, 0, 0)))
    return LabelSet(labels, ignore=255 if ignore else None)


def _region_set(*, ignore: bool = False) -> LabelSet:
    """Return two labels and two regions: both labels, and the second one alone."""
    labels = _label_set(2)
    regions = [Region("whole", (1, 2), 0, 1), Region("inner", (2,), 1, 2)]
    return LabelSet(
        list(labels), ignore=255 if ignore else None, regions=regions
    )


def _random_batch(
    labels: int, size: tuple[int, ...], channels: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits that want a gradient, and label indices; every label occurs."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, channels or labels + 1, *size)
    logits = torch.randn(shape, generator=generator).requires_grad_(True)
    label = torch.randint(0, labels + 1, (2, 1, *size), generator=generator)
    return logits, label


def _certain_logits(label: torch.Tensor, channels: int) -> torch.Tensor:
    one_hot = functional.one_hot(label[:, 0], channels).movedim(-1, 1)
    return 20.0 * one_hot.float()


def _gradient(total: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(total, logits)
    return gradient
