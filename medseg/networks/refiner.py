"""The refiner R, and the network it corrects, as one: ``q = softmax(logits + s·R(image, p))``.

Both are stated as data and made of MONAI's and torch's classes alone, so that stock MONAI runs the
refined network and ours is built from the very same statement. What flows from layer to layer
grows by what each layer adds to the channels: image → image, logits → image, logits, p → image,
logits, p, s·R → logits + s·R. Convolutions of one voxel with fixed weights pick channels and add.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from monai.networks.layers import SkipConnection
from monai.networks.nets import UNet
from torch import nn

from medseg.bundle.spec import BundleSpec, RefinementSpec
from medseg.errors import CheckpointError
from medseg.networks.building import build_network
from medseg.networks.definition import define_network
from medseg.networks.unet import NetworkDefinition

Weights = Mapping[str, torch.Tensor]

COARSE = "0.submodule."
"""Where the network's own weights are within the refined network."""

_LEARNED = "1.1.submodule.1."
"""Where R's weights are within the refined network: behind the pick of its input."""

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTION = {2: "torch.nn.Conv2d", 3: "torch.nn.Conv3d"}


def define_refined_network(spec: BundleSpec, outputs: int | None = None) -> NetworkDefinition:
    """State the network with its refiner: image ``(batch, channels, *patch)`` → refined logits.

    A chain is stated as ``{"_target_": "torch.nn.Sequential", "layers": […]}``.

    Args:
        spec: A bundle with a refiner.
        outputs: Channels of the answer; the classes unless given.
    """
    coarse = define_network(spec, supervised=False)
    return _chain(_grow(coarse), define_refiner(spec, outputs))


def define_refiner(spec: BundleSpec, outputs: int | None = None) -> NetworkDefinition:
    """State what corrects: image and logits, as channels → refined logits."""
    images, classes, dims = len(spec.channels), spec.label_set.channels, spec.network.dims
    probabilities = _chain(_mix(dims, images + classes, classes), _softmax())
    correction = _chain(
        _mix(dims, images + 2 * classes, images + classes),
        _chain(
            _unet(spec),
            {
                "_target_": _CONVOLUTION[dims],
                "in_channels": classes,
                "out_channels": classes,
                "kernel_size": 1,
                "groups": classes,
                "bias": False,
            },
        ),
    )
    return _chain(
        _grow(probabilities),
        _grow(correction),
        _mix(dims, images + 3 * classes, outputs or classes),
    )


def _chain(*layers: NetworkDefinition) -> NetworkDefinition:
    return {"_target_": "torch.nn.Sequential", "layers": list(layers)}


def _grow(layer: NetworkDefinition) -> NetworkDefinition:
    return {
        "_target_": "monai.networks.layers.SkipConnection",
        "submodule": layer,
        "dim": 1,
        "mode": "cat",
    }


def _mix(dims: int, inputs: int, outputs: int) -> NetworkDefinition:
    return {
        "_target_": _CONVOLUTION[dims],
        "in_channels": inputs,
        "out_channels": outputs,
        "kernel_size": 1,
        "bias": False,
    }


def _softmax() -> NetworkDefinition:
    return {"_target_": "torch.nn.Softmax", "dim": 1}


def _unet(spec: BundleSpec) -> NetworkDefinition:
    """State R: it sees the finest level at full size and halves where the patch can be halved."""
    refinement, classes = _refinement(spec), spec.label_set.channels
    sizes = list(spec.training.patch)
    strides: list[list[int]] = [[1] * len(sizes)]
    for _ in refinement.channels[2:]:
        # Four voxels and more are halved, so that at least two are left to normalise.
        halved = [2 if size % 2 == 0 and size >= 4 else 1 for size in sizes]
        sizes = [size // by for size, by in zip(sizes, halved, strict=True)]
        strides.append(halved)
    return {
        "_target_": "monai.networks.nets.UNet",
        "spatial_dims": spec.network.dims,
        "in_channels": len(spec.channels) + classes,
        "out_channels": classes,
        "channels": list(refinement.channels),
        "strides": strides,
        "norm": "INSTANCE",
        "act": "LEAKYRELU",
    }


def _refinement(spec: BundleSpec) -> RefinementSpec:
    return spec.refinement or RefinementSpec()


def build_refined(spec: BundleSpec, *, both: bool = False) -> nn.Module:
    """Build the network with its refiner, randomly initialised from the global torch seed.

    Args:
        spec: A bundle with a refiner.
        both: Whether it answers ``(batch, 2 · classes, *patch)``: first the coarse logits, then
            the refined ones.
    """
    classes = spec.label_set.channels
    definition = define_refined_network(spec, 2 * classes if both else classes)
    coarse = build_network(spec, supervised=False)
    return nn.Sequential(SkipConnection(coarse), _build_refining(definition["layers"][1], spec))


def build_refiner(spec: BundleSpec) -> nn.Sequential:
    """Build what corrects: ``(batch, channels + classes, *patch)`` → refined logits.

    R's last layer is zero at first, so that nothing is changed before something is learned.
    """
    return _build_refining(define_refiner(spec), spec)


def _build_refining(definition: NetworkDefinition, spec: BundleSpec) -> nn.Sequential:
    refining = _built(definition)
    if not isinstance(refining, nn.Sequential):
        raise TypeError("a refiner is a chain of layers")
    images, classes = len(spec.channels), spec.label_set.channels
    image = range(images)
    logits = range(images, images + classes)
    probabilities = range(images + classes, images + 2 * classes)
    correction = range(images + 2 * classes, images + 3 * classes)
    answer: list[list[int]] = [[a, b] for a, b in zip(logits, correction, strict=True)]
    if definition["layers"][-1]["out_channels"] == 2 * classes:
        answer = [[channel] for channel in logits] + answer
    _fix(refining.get_submodule("0.submodule.0"), [[channel] for channel in logits])
    seen = [[channel] for channel in (*image, *probabilities)]
    _fix(refining.get_submodule("1.submodule.0"), seen)
    _fix(refining.get_submodule("2"), answer)
    unet, scale = get_trainable_part(refining).children()
    last = [layer for layer in unet.modules() if isinstance(layer, _CONVOLUTIONS)][-1]
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(scale.get_parameter("weight"), _refinement(spec).scale)
    return refining


def _fix(convolution: nn.Module, sums: Sequence[Iterable[int]]) -> None:
    """Let each output channel be the sum of some input channels, for good."""
    weight = convolution.get_parameter("weight")
    with torch.no_grad():
        weight.zero_()
        for output, inputs in enumerate(sums):
            weight[output, list(inputs)] = 1.0
    weight.requires_grad_(False)


def _built(definition: Mapping[str, Any]) -> nn.Module:
    """Build what a definition of this module states; it holds no other classes."""
    given = {name: value for name, value in definition.items() if name != "_target_"}
    match definition["_target_"]:
        case "torch.nn.Sequential":
            return nn.Sequential(*(_built(layer) for layer in given["layers"]))
        case "monai.networks.layers.SkipConnection":
            return SkipConnection(**given | {"submodule": _built(given["submodule"])})  # type: ignore[no-any-return]
        case "monai.networks.nets.UNet":
            return UNet(**given)  # type: ignore[no-any-return]
        case "torch.nn.Softmax":
            return nn.Softmax(**given)
        case "torch.nn.Conv2d":
            return nn.Conv2d(**given)
        case "torch.nn.Conv3d":
            return nn.Conv3d(**given)
        case other:
            raise TypeError(f"{other} is no part of a refiner")


def get_trainable_part(refining: nn.Module) -> nn.Module:
    """Return the part of a refining network that learns: R and its scale."""
    return refining.get_submodule("1.submodule.1")


def merge_weights(spec: BundleSpec, coarse: Weights, refiner: Weights) -> Weights:
    """Return the weights of the refined network that stock MONAI runs.

    Args:
        spec: A bundle with a refiner.
        coarse: Weights of the network itself, for inference.
        refiner: Weights of what learned to correct.

    Raises:
        CheckpointError: If the weights are of other networks.
    """
    network = build_refined(spec)
    load_refined(network, coarse, refiner)
    return network.state_dict()


def load_refined(network: nn.Module, coarse: Weights, refiner: Weights) -> None:
    """Give a network of ``build_refined`` its weights.

    Raises:
        CheckpointError: If the weights are of other networks.
    """
    given = {
        **{f"{COARSE}{name}": value for name, value in coarse.items()},
        **{f"{_LEARNED}{name}": value for name, value in refiner.items()},
    }
    fixed = {
        name: value for name, value in network.state_dict().items() if _is_fixed(name, network)
    }
    try:
        network.load_state_dict(given | fixed)
    except RuntimeError as error:
        raise CheckpointError(
            "the weights of the network and of its refiner are not those bundle.json describes: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from error


def _is_fixed(name: str, network: nn.Module) -> bool:
    return not name.startswith((COARSE, _LEARNED)) and name in network.state_dict()


def select_coarse_weights(weights: Weights) -> dict[str, torch.Tensor]:
    """Return the network's own weights out of a bundle's, refined or not."""
    if not any(name.startswith(COARSE) for name in weights):
        return dict(weights)
    return {
        name.removeprefix(COARSE): value
        for name, value in weights.items()
        if name.startswith(COARSE)
    }
