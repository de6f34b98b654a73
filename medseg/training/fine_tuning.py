"""Fine-tuning: a network starts from the weights of a trained bundle.

Which weights belong to labels and which to channels is not read off layer names: a copy of the
network with one label (or channel) more shows along which axes its weights grow. So the rules
hold for any network of MONAI.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from medseg.bundle.bundle import Bundle, require_single
from medseg.bundle.safe_weights import load_bundle_weights
from medseg.bundle.spec import BundleSpec, ChannelSpec, LabelSpec
from medseg.bundle.spec_files import list_differences
from medseg.errors import CheckpointError
from medseg.networks.building import build_for_shapes
from medseg.networks.refiner import select_coarse_weights
from medseg.training.lineage import (
    Sources,
    any_known,
    initial_weights_file,
    input_sources,
    label_sources,
)

Shapes = Mapping[str, torch.Size]
"""Name of a weight → its shape."""


@dataclass(frozen=True, slots=True)
class _SlicedWeight:
    """A weight with one slice per output class or input channel.

    Attributes:
        axes: The axes of these slices; two where classes meet classes.
        sources: Which of the parent's slices each slice starts from.
        zero_new: Whether slices without a source start at zero.
    """

    axes: tuple[int, ...]
    sources: Sources
    zero_new: bool = False

    def fits(self, shape: torch.Size, parent_shape: torch.Size) -> bool:
        """Return whether the parent's weight has this shape, but for the number of slices."""
        if len(parent_shape) != len(shape):
            return False
        highest = 0
        for source in self.sources:
            if source is not None:
                highest = max(highest, source)
        for axis, size in enumerate(shape):
            parent_size = parent_shape[axis]
            if axis in self.axes:
                has_all_sources = parent_size > highest
                fits = has_all_sources and size == len(self.sources)
            else:
                fits = size == parent_size
            if not fits:
                return False
        return True

    def load_into(self, tensor: torch.Tensor, parent: torch.Tensor) -> None:
        """Overwrite the slices that have a source with the parent's."""
        if self.zero_new:
            tensor.zero_()
        targets: list[int] = []
        sources: list[int] = []
        for target, source in enumerate(self.sources):
            if source is not None:
                targets.append(target)
                sources.append(source)
        if not targets:
            return
        parent_index = _slice_index(parent.shape, self.axes, sources)
        index = _slice_index(tensor.shape, self.axes, targets)
        tensor[index] = parent[parent_index].to(tensor)


class InitialWeights:
    """The weights of a parent, ready to be loaded into the networks of a bundle.

    Args:
        spec: The bundle to train.
        parent: The trained bundle to start from.

    Raises:
        BundleError: If the parent is an assembly.
        CheckpointError: If the parent has no weights, they are damaged, or they belong to a
            network that is built differently.
    """

    def __init__(self, spec: BundleSpec, parent: Bundle) -> None:
        require_single(parent, "fine-tuned")
        self._weights = select_coarse_weights(
            load_bundle_weights(parent, initial_weights_file(parent))
        )
        shapes = _shapes(spec)
        self._sliced = _find_sliced_weights(spec, parent.spec, shapes)
        self._shared = self._find_shared_weights(spec, parent, shapes)
        self._require_all_layers(spec, parent, shapes)

    def load_into(self, network: nn.Module) -> None:
        """Overwrite a newly initialised network's weights with what is taken over."""
        with torch.no_grad():
            for name, tensor in _tensors(network).items():
                parent = self._weights.get(name)
                if parent is None:
                    continue
                if name in self._shared:
                    tensor.copy_(parent)
                elif name in self._sliced:
                    self._sliced[name].load_into(tensor, parent)

    def _require_all_layers(
        self, spec: BundleSpec, parent: Bundle, shapes: Shapes
    ) -> None:
        """Make sure that no layer of the parent is dropped on the way.

        Some networks have a layer only where the number of channels changes: MONAI's residual
        blocks have a projection then, which one more input channel can make superfluous.

        Raises:
            CheckpointError: If the parent's network answers by a weight that this one lacks.
        """
        used = _tensors(build_for_shapes(parent.spec))
        dropped = (used.keys() & self._weights.keys()) - shapes.keys()
        if dropped:
            raise CheckpointError(
                "the parent's network has a layer that this bundle's lacks, so that it would not "
                "begin as its parent. A residual block has a projection only where the number of "
                "channels changes, and clicks are three more that come in: start from a parent "
                "whose 'network.channels' begin with another number, or train without --from",
                source=parent.folder,
                detail=_describe_mismatch(spec, parent.spec, dropped),
            )

    def _find_shared_weights(
        self, spec: BundleSpec, parent: Bundle, shapes: Shapes
    ) -> frozenset[str]:
        """Return the names of the weights that are copied as they are.

        Raises:
            CheckpointError: If inference needs a weight that the parent lacks in this shape.
        """
        inference_network = build_for_shapes(spec, supervised=False)
        inference_tensors = _tensors(inference_network)
        needed = inference_tensors.keys() & shapes.keys()
        fitting = {name for name in shapes if self._fits(name, shapes)}
        unlike = needed - fitting
        if unlike:
            raise CheckpointError(
                "the weights belong to a network that is built differently; give this bundle the "
                "parent's 'network' section, or train without --from",
                source=parent.folder,
                detail=_describe_mismatch(spec, parent.spec, unlike),
            )
        return frozenset(fitting - self._sliced.keys())

    def _fits(self, name: str, shapes: Shapes) -> bool:
        """Return whether the parent has this weight in a shape that can be taken over."""
        if name not in self._weights:
            return False
        parent_shape = self._weights[name].shape
        shape = shapes[name]
        if name in self._sliced:
            return self._sliced[name].fits(shape, parent_shape)
        return parent_shape == shape


def _find_sliced_weights(
    spec: BundleSpec, parent: BundleSpec, shapes: Shapes
) -> dict[str, _SlicedWeight]:
    """Find the weights that have one slice per input channel or output class."""
    sliced = {}
    sources = input_sources(parent, spec)
    # A new channel at zero adds nothing, so that the network first answers as its parent did.
    zero_new = any_known(sources)
    with_channel = _shapes(_add_channel(spec))
    for name, axes in _grown_axes(shapes, with_channel).items():
        sliced[name] = _SlicedWeight(axes, sources, zero_new)
    sources = label_sources(parent, spec)
    with_label = _shapes(_add_label(spec))
    for name, axes in _grown_axes(shapes, with_label).items():
        sliced[name] = _SlicedWeight(axes, sources)
    return sliced


def _describe_mismatch(
    spec: BundleSpec, parent: BundleSpec, unlike: Collection[str]
) -> str:
    """Name the fields that make the networks differ, or the first weight that does not fit."""
    changes = list_differences(parent, spec)
    network_changes = [
        change for change in changes if change.startswith("network.")
    ]
    return "; ".join(network_changes) or min(unlike)


def _slice_index(
    shape: torch.Size, axes: Sequence[int], slices: Sequence[int]
) -> tuple[torch.Tensor, ...]:
    """Return the index of all that lies in the given slices of these axes."""
    rows: list[Sequence[int]] = []
    for axis, size in enumerate(shape):
        every = range(size)
        rows.append(slices if axis in axes else every)
    open_mesh = np.ix_(*rows)
    return tuple(torch.from_numpy(row) for row in open_mesh)


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    tensors.update(network.named_parameters())
    tensors.update(network.named_buffers())
    return tensors


def _shapes(spec: BundleSpec) -> Shapes:
    network = build_for_shapes(spec, supervised=True)
    tensors = _tensors(network)
    return {name: tensor.shape for name, tensor in tensors.items()}


def _grown_axes(shapes: Shapes, larger: Shapes) -> dict[str, tuple[int, ...]]:
    """Return the weights that are larger in the other network, and along which axes."""
    grown = {}
    for name, shape in shapes.items():
        other = larger.get(name)
        if other is None:
            continue
        if len(other) != len(shape):
            continue
        axes = []
        for axis, size in enumerate(shape):
            if size != other[axis]:
                axes.append(axis)
        if axes:
            grown[name] = tuple(axes)
    return grown


def _add_label(spec: BundleSpec) -> BundleSpec:
    """Return a bundle whose network has one output channel more."""
    if spec.regions:
        first = spec.regions[0]
        copy = first.model_copy(update={"paints": first.labels[0]})
        regions = (copy, *spec.regions)
        return spec.model_copy(update={"regions": regions})
    index = len(spec.labels) + 1
    label = LabelSpec(index=index, name="one more")
    labels = (*spec.labels, label)
    return spec.model_copy(update={"labels": labels})


def _add_channel(spec: BundleSpec) -> BundleSpec:
    """Return a bundle whose network has one input channel more."""
    channels = (*spec.channels, ChannelSpec(name="one more"))
    return spec.model_copy(update={"channels": channels})
