"""Clicks of a person who corrects a mask, simulated while a network learns to follow them.

The network segments a patch; the middle of the largest error of one label is clicked on; the
network segments again and sees the click; and so on. What it then learns from is the last of
these: the image, the clicks, and the mask before the last of them.

A network makes few errors on cases it learns from, and clicks tell it little there. So half of
these patches begin with a true mask that errors were put into; and on half of them what is true is
redrawn first, so that the clicks alone say where its border runs. All chance comes from (seed,
step, item), as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from medseg.bundle.spec import BundleSpec, ClicksSpec
from medseg.networks.click_inputs import append_no_clicks, draw_click_inputs
from medseg.networks.levels import list_levels
from medseg.training.mask_errors import corrupt_mask
from medseg.training.redrawn_borders import redraw_border
from medseg.volume import Array

_STREAM = 1
"""Behind (seed, step, item): another source of chance than the patch's."""

_CORRUPT_SHARE = 0.5
"""Share of clicked patches whose first mask is the true one with errors put into it."""

_REDRAWN_SHARE = 0.5
"""Share of clicked patches on which the border of the label to correct is redrawn."""

_MIDDLE = 0.5
"""Share of the largest distance from an error's border that counts as its middle."""

Point = tuple[int, ...]
Forward = Callable[[torch.Tensor, nn.Module], torch.Tensor]


class Click(NamedTuple):
    """Where a mask is corrected.

    Attributes:
        point: The voxel.
        is_inside: Whether the label is missing there; else it is there and should not be.
    """

    point: Point
    is_inside: bool


def find_next_click(
    mask: Array,
    reference: Array,
    rng: np.random.Generator | None = None,
) -> Click | None:
    """Click on the largest error of a mask: a connected part that is missing or too much.

    Args:
        mask: Where the label is said to be, booleans of any number of axes.
        reference: Where it is.
        rng: Draws a voxel about the middle of the error; unless given it is the one that is
            farthest from the error's border.

    Returns:
        The click; ``None`` where nothing is wrong.
    """
    largest: Array | None = None
    most, is_inside = 0, False
    for is_missing in (True, False):
        error = reference & ~mask if is_missing else mask & ~reference
        parts, count = ndimage.label(error)
        if not count:
            continue
        sizes = np.bincount(parts.ravel())[1:]
        if sizes.max() > most:
            most, is_inside = int(sizes.max()), is_missing
            largest = parts == 1 + sizes.argmax()
    if largest is None:
        return None
    return Click(_choose_middle(largest, rng), is_inside)


def _choose_middle(part: Array, rng: np.random.Generator | None) -> Point:
    box = ndimage.find_objects(part.view(np.uint8))[0]
    with_border = np.pad(part[box], 1)
    distance = ndimage.distance_transform_edt(with_border)
    inner = distance[(slice(1, -1),) * part.ndim]
    if rng is None:
        farthest = np.argwhere(inner == inner.max())
        from_mean = np.abs(farthest - farthest.mean(axis=0)).sum(axis=1)
        position = farthest[from_mean.argmin()]
    else:
        middle = np.argwhere(inner >= _MIDDLE * inner.max())
        position = middle[rng.integers(len(middle))]
    return tuple(
        int(start.start + along)
        for start, along in zip(box, position, strict=True)
    )


@dataclass(slots=True)
class _ClickedPatch:
    """A patch while it is clicked on.

    Attributes:
        reference: Where the label is.
        known: Where it is known; elsewhere nothing is wrong.
        label: The label's index.
        wanted: How many clicks are still to come.
        rng: Its source of chance.
        mask: What is to be corrected, once there is one.
        shown: The mask that the network sees: before the last click.
        inside: Clicks inside the label.
        outside: Clicks outside of it.
    """

    reference: Array
    known: Array
    label: int
    wanted: int
    rng: np.random.Generator
    mask: Array | None = None
    shown: Array | None = None
    inside: list[Point] = field(default_factory=list)
    outside: list[Point] = field(default_factory=list)

    def click(self) -> None:
        """Click on what is most wrong; it is the last click where nothing is."""
        if self.mask is None:
            raise TypeError("there is no mask yet")
        # What nobody has annotated is as it should be.
        reference = np.where(self.known, self.reference, self.mask)
        click = find_next_click(self.mask, reference, self.rng)
        if click is None:
            self.wanted = 0
            return
        self.wanted -= 1
        self.shown = self.mask
        clicks = self.inside if click.is_inside else self.outside
        clicks.append(click.point)


class ClickSimulator:
    """Adds what shows clicks to batches of patches.

    Args:
        network: The network that learns.
        spec: A bundle with ``training.clicks``.
        forward: Passes images through it in the run's arithmetic.
    """

    def __init__(
        self, network: nn.Module, spec: BundleSpec, forward: Forward
    ) -> None:
        self._network = network
        self._channels = spec.input_channels
        self._clicks = spec.training.clicks or ClicksSpec()
        self._seed = spec.training.seed
        self._label_set = spec.label_set
        self._forward = forward

    def __call__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        step: int,
        items: range,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images with what shows clicks behind their channels, and what is true of them.

        Args:
            images: ``(batch, channels, *patch)``.
            labels: Label indices, int64 ``(batch, 1, *patch)``.
            step: 1-based; the network has taken the steps before it.
            items: The numbers of these patches in the batch.

        Returns:
            ``(batch, input channels, *patch)``, and the labels with redrawn borders.
        """
        inputs = append_no_clicks(images, self._channels)
        redrawn = labels.clone()
        patches: dict[int, _ClickedPatch] = {}
        for position, item in enumerate(items):
            rng = np.random.default_rng([self._seed, step, item, _STREAM])
            if rng.random() < self._clicks.share:
                label = redrawn[position, 0]
                patches[position] = self._begin(label, rng)
        was_training = self._network.training
        self._network.eval()
        with torch.no_grad():
            for _ in range(self._clicks.most):
                self._click_once(inputs, patches)
        self._network.train(was_training)
        for position, patch in patches.items():
            if (
                patch.shown is None
            ):  # nothing was wrong, and nothing tells of what was redrawn
                redrawn[position] = labels[position]
        return inputs, redrawn

    def _begin(
        self, label: torch.Tensor, rng: np.random.Generator
    ) -> _ClickedPatch:
        """Choose the label to correct, how often it is clicked on, and whether its mask is given.

        Chance is drawn whether used or not, so that one choice does not shift another's.

        Args:
            label: Label indices of a patch; the border of the chosen one may be redrawn in it.
            rng: The patch's source of chance.
        """
        ignored = self._label_set.ignore_index
        known = torch.ones_like(label, dtype=torch.bool)
        if ignored is not None:
            known = label.ne(ignored)
        annotated = torch.where(known, label, 0)
        present = np.unique(_to_array(annotated)).tolist()
        candidates = [index for index in present if index]
        if not candidates:
            candidates = [each.index for each in self._label_set]
        chosen = candidates[rng.integers(len(candidates))]
        wanted = 1 + int(rng.integers(self._clicks.most))
        is_given = rng.random() < _CORRUPT_SHARE
        is_redrawn = rng.random() < _REDRAWN_SHARE
        noise = torch.Generator(label.device)
        noise.manual_seed(int(rng.integers(2**62)))
        bulges = np.random.default_rng(rng.integers(2**62))
        if is_redrawn:
            redrawn = redraw_border(_to_array(annotated), chosen, bulges)
            annotated = torch.from_numpy(redrawn).to(label.device)
            label[known] = annotated[known]
        patch = _ClickedPatch(
            _to_array(annotated.eq(chosen)),
            _to_array(known),
            chosen,
            wanted,
            rng,
        )
        if is_given:
            classes = self._label_set.classes
            corrupted = corrupt_mask(annotated, classes, rng, noise)
            patch.mask = _to_array(corrupted.eq(chosen))
        return patch

    def _click_once(
        self, inputs: torch.Tensor, patches: dict[int, _ClickedPatch]
    ) -> None:
        """Click once on each patch that is not done, and write it into the inputs."""
        active = {
            position: patch
            for position, patch in patches.items()
            if patch.wanted
        }
        has_clicks = [
            position
            for position, patch in active.items()
            if patch.mask is None or patch.shown is not None
        ]
        self._segment(inputs, active, has_clicks)
        for position, patch in active.items():
            patch.click()
            self._show(inputs[position], patch)

    def _segment(
        self,
        inputs: torch.Tensor,
        patches: dict[int, _ClickedPatch],
        positions: Sequence[int],
    ) -> None:
        """Give patches the mask that the network makes of them as they are shown to it."""
        if not positions:
            return
        output = self._forward(inputs[list(positions)], self._network)
        winners = list_levels(output)[0].argmax(dim=1)
        for position, of_patch in zip(positions, winners, strict=True):
            patch = patches[position]
            patch.mask = _to_array(of_patch.eq(patch.label))

    def _show(self, inputs: torch.Tensor, patch: _ClickedPatch) -> None:
        if patch.shown is None:
            return
        mask = torch.from_numpy(patch.shown).to(inputs.device)
        drawn = draw_click_inputs(
            patch.inside, patch.outside, mask, self._clicks.sigma
        )
        inputs[-len(drawn) :] = drawn


def _to_array(tensor: torch.Tensor) -> Array:
    return tensor.cpu().numpy()
