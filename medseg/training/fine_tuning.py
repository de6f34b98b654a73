"""Fine-tuning: a network starts from the weights of a trained bundle.

Which weights belong to labels and which to channels is not read off layer names: a copy of the
network with one label (or channel) more shows where its shapes grow. So the rules hold for any
network of MONAI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from medseg.bundle.bundle import Bundle, differences
from medseg.bundle.spec import BundleSpec, ChannelSpec, LabelSpec
from medseg.bundle.weights import Weights, load_weights
from medseg.errors import BundleError, CheckpointError
from medseg.networks.refiner import coarse_weights
from medseg.networks.unet import build_network
from medseg.training.lineage import (
    Sources,
    any_known,
    channel_sources,
    initial_weights_file,
    label_sources,
)

Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True, slots=True)
class _Places:
    """A weight with one slice per class or channel.

    Attributes:
        axes: The axes of these slices; two where classes meet classes.
        sources: Which of the parent's slices goes to each.
        zero: Whether slices without a source start at zero.
    """

    axes: tuple[int, ...]
    sources: Sources
    zero: bool = False


class InitialWeights:
    """The weights of a parent, ready to be laid into the networks of a bundle.

    Args:
        spec: The bundle to train.
        parent: The trained bundle to start from.

    Raises:
        CheckpointError: If the parent has no weights, they are damaged, or they are of a network
            that is built differently.
    """

    def __init__(self, spec: BundleSpec, parent: Bundle) -> None:
        self._weights = coarse_weights(load_weights(initial_weights_file(parent)))
        shapes = _shapes(spec)
        columns = channel_sources(parent.spec, spec)
        self._places = {
            **{
                name: _Places(axes, columns, zero=any_known(columns))
                for name, axes in _grown(shapes, _shapes(_with_one_channel_more(spec))).items()
            },
            **{
                name: _Places(axes, label_sources(parent.spec, spec))
                for name, axes in _grown(shapes, _shapes(_with_one_label_more(spec))).items()
            },
        }
        self._shared = _shared(shapes, self._places, self._weights, spec, parent)

    def load_into(self, network: nn.Module) -> None:
        """Overwrite a freshly initialised network's weights with what is taken over."""
        with torch.no_grad():
            for name, tensor in _tensors(network).items():
                if name in self._shared:
                    tensor.copy_(self._weights[name])
                elif name in self._places and name in self._weights:
                    _lay_slices(tensor, self._weights[name], self._places[name])


def _lay_slices(tensor: torch.Tensor, parent: torch.Tensor, places: _Places) -> None:
    if places.zero:
        tensor.zero_()
    known = [(here, there) for here, there in enumerate(places.sources) if there is not None]
    if known:
        here, there = zip(*known, strict=True)
        found = parent[_index(parent.shape, places.axes, there)]
        tensor[_index(tensor.shape, places.axes, here)] = found.to(tensor)


def _index(
    shape: torch.Size, axes: Sequence[int], chosen: Sequence[int]
) -> tuple[torch.Tensor, ...]:
    """Return the index of all that lies on the chosen places of these axes."""
    rows = [chosen if axis in axes else range(size) for axis, size in enumerate(shape)]
    return tuple(torch.from_numpy(row) for row in np.ix_(*rows))


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    return dict(network.named_parameters()) | dict(network.named_buffers())


def _shapes(spec: BundleSpec) -> Shapes:
    return {name: value.shape for name, value in _tensors(_sketch(spec)).items()}


def _sketch(spec: BundleSpec, supervised: bool = True) -> nn.Module:
    """Build a network for its shapes alone, if it can be without memory and arithmetic."""
    try:
        with torch.device("meta"):
            return build_network(spec, supervised)
    except BundleError as error:
        if "meta" not in str(error):
            raise
    with torch.random.fork_rng(devices=[]):
        return build_network(spec, supervised)


def _grown(shapes: Shapes, larger: Shapes) -> dict[str, tuple[int, ...]]:
    """Return the weights that grew, and the axes along which they did."""
    grown = {
        name: tuple(
            axis for axis, (a, b) in enumerate(zip(shape, larger[name], strict=True)) if a != b
        )
        for name, shape in shapes.items()
        if name in larger and len(larger[name]) == len(shape)
    }
    return {name: axes for name, axes in grown.items() if axes}


def _with_one_label_more(spec: BundleSpec) -> BundleSpec:
    """Return a bundle whose network has one output channel more."""
    if spec.regions:
        first = spec.regions[0]
        again = first.model_copy(update={"paints": first.labels[0]})
        return spec.model_copy(update={"regions": (again, *spec.regions)})
    label = LabelSpec(index=len(spec.labels) + 1, name="one more")
    return spec.model_copy(update={"labels": (*spec.labels, label)})


def _with_one_channel_more(spec: BundleSpec) -> BundleSpec:
    return spec.model_copy(update={"channels": (*spec.channels, ChannelSpec(name="one more"))})


def _shared(
    shapes: Shapes,
    places: Mapping[str, _Places],
    weights: Weights,
    spec: BundleSpec,
    parent: Bundle,
) -> frozenset[str]:
    """Return the weights that are copied whole.

    Raises:
        CheckpointError: If inference needs one that the parent does not have in this shape.
    """
    whole = {name for name in shapes if name not in places}
    needed = _tensors(_sketch(spec, supervised=False)).keys()
    unlike = [
        name
        for name in whole & needed
        if name not in weights or weights[name].shape != shapes[name]
    ]
    torn = [
        name
        for name in places.keys() & needed
        if name not in weights or not _fits(name, shapes, places, weights)
    ]
    if unlike or torn:
        fields = [one for one in differences(parent.spec, spec) if one.startswith("network.")]
        raise CheckpointError(
            f"the weights of {parent.folder} are of a network that is built differently "
            f"({'; '.join(fields) or min(unlike + torn)}); give this bundle the parent's "
            "'network' section, or train without --from"
        )
    return frozenset(
        name for name in whole if name in weights and weights[name].shape == shapes[name]
    )


def _fits(name: str, shapes: Shapes, places: Mapping[str, _Places], weights: Weights) -> bool:
    """Tell whether the parent's weight has this shape, but for the number of slices."""
    theirs, ours, axes = weights[name].shape, shapes[name], places[name].axes
    sources = places[name].sources
    highest = max((source for source in sources if source is not None), default=0)
    return len(theirs) == len(ours) and all(
        ours[axis] == len(sources) and theirs[axis] > highest
        if axis in axes
        else ours[axis] == theirs[axis]
        for axis in range(len(ours))
    )
