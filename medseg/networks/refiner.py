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
"""Where R's weights are within the refined network: behind the layer that picks its input."""

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTION = {2: "torch.nn.Conv2d", 3: "torch.nn.Conv3d"}


def define_refined_network(
    spec: BundleSpec, outputs: int | None = None
) -> NetworkDefinition:
    """State the network with its refiner: image ``(batch, channels, *patch)`` → refined logits.

    A chain is stated as ``{"_target_": "torch.nn.Sequential", "layers": […]}``.

    Args:
        spec: A bundle with a refiner.
        outputs: Channels of the answer; the classes unless given.
    """
    coarse = define_network(spec, supervised=False)
    return _define_chain(_define_skip(coarse), define_refiner(spec, outputs))


def define_refiner(
    spec: BundleSpec, outputs: int | None = None
) -> NetworkDefinition:
    """State what corrects: image and logits, as channels → refined logits."""
    images = len(spec.channels)
    classes = spec.label_set.channels
    dims = spec.network.dims
    pick_logits = _define_mix(dims, images + classes, classes)
    probabilities = _define_chain(
        pick_logits, {"_target_": "torch.nn.Softmax", "dim": 1}
    )
    pick_input = _define_mix(dims, images + 2 * classes, images + classes)
    # One learned number per class: a convolution of one voxel, each class by itself.
    scale = _define_mix(dims, classes, classes) | {"groups": classes}
    correction = _define_chain(
        pick_input, _define_chain(_define_unet(spec), scale)
    )
    add = _define_mix(dims, images + 3 * classes, outputs or classes)
    return _define_chain(
        _define_skip(probabilities), _define_skip(correction), add
    )


def _define_chain(*layers: NetworkDefinition) -> NetworkDefinition:
    return {"_target_": "torch.nn.Sequential", "layers": list(layers)}


def _define_skip(layer: NetworkDefinition) -> NetworkDefinition:
    return {
        "_target_": "monai.networks.layers.SkipConnection",
        "submodule": layer,
        "dim": 1,
        "mode": "cat",
    }


def _define_mix(dims: int, inputs: int, outputs: int) -> NetworkDefinition:
    return {
        "_target_": _CONVOLUTION[dims],
        "in_channels": inputs,
        "out_channels": outputs,
        "kernel_size": 1,
        "bias": False,
    }


def _define_unet(spec: BundleSpec) -> NetworkDefinition:
    """State R: it sees the finest level at full size and halves where the patch can be halved."""
    refinement = _get_refinement(spec)
    classes = spec.label_set.channels
    strides = _choose_strides(
        spec.training.patch, levels=len(refinement.channels)
    )
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


def _choose_strides(patch: Sequence[int], levels: int) -> list[list[int]]:
    """Choose the strides between levels; the second level is as fine as the first."""
    sizes = list(patch)
    strides = [[1] * len(sizes)]
    for _ in range(levels - 2):
        stride = []
        for axis, size in enumerate(sizes):
            # Four voxels and more are halved, so that at least two are left to normalise.
            step = 2 if size % 2 == 0 and size >= 4 else 1
            sizes[axis] = size // step
            stride.append(step)
        strides.append(stride)
    return strides


def _get_refinement(spec: BundleSpec) -> RefinementSpec:
    return spec.refinement or RefinementSpec()


def build_refined(spec: BundleSpec, *, both: bool = False) -> nn.Module:
    """Build the network with its refiner, randomly initialised from the global torch seed.

    Args:
        spec: A bundle with a refiner.
        both: Whether it answers ``(batch, 2 · classes, *patch)``: first the coarse logits, then
            the refined ones.
    """
    from monai.networks.layers import SkipConnection

    classes = spec.label_set.channels
    definition = define_refined_network(spec, 2 * classes if both else classes)
    coarse = build_network(spec, supervised=False)
    return nn.Sequential(
        SkipConnection(coarse), _build_refiner(definition["layers"][1], spec)
    )


def build_refiner(spec: BundleSpec) -> nn.Sequential:
    """Build what corrects: ``(batch, channels + classes, *patch)`` → refined logits.

    R's last layer is zero at first, so that nothing is changed before something is learned.
    """
    return _build_refiner(define_refiner(spec), spec)


def _build_refiner(
    definition: NetworkDefinition, spec: BundleSpec
) -> nn.Sequential:
    refiner = _build_definition(definition)
    if not isinstance(refiner, nn.Sequential):
        raise TypeError("a refiner is a chain of layers")
    images = len(spec.channels)
    classes = spec.label_set.channels
    # Channels as they follow each other: image, logits, probabilities, correction.
    image = range(images)
    logits = range(images, images + classes)
    probabilities = range(images + classes, images + 2 * classes)
    correction = range(images + 2 * classes, images + 3 * classes)
    refined = [
        [logit, added] for logit, added in zip(logits, correction, strict=True)
    ]
    coarse = [[logit] for logit in logits]
    has_both = definition["layers"][-1]["out_channels"] == 2 * classes
    _fix_sums(refiner.get_submodule("0.submodule.0"), coarse)
    _fix_sums(
        refiner.get_submodule("1.submodule.0"),
        [[c] for c in (*image, *probabilities)],
    )
    _fix_sums(
        refiner.get_submodule("2"), coarse + refined if has_both else refined
    )
    unet, scale = get_trainable_part(refiner).children()
    convolutions = [
        layer for layer in unet.modules() if isinstance(layer, _CONVOLUTIONS)
    ]
    for parameter in convolutions[-1].parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(
        scale.get_parameter("weight"), _get_refinement(spec).scale
    )
    return refiner


def _fix_sums(convolution: nn.Module, sums: Sequence[Iterable[int]]) -> None:
    """Let each output channel be the sum of some input channels, for good."""
    weight = convolution.get_parameter("weight")
    with torch.no_grad():
        weight.zero_()
        for output, inputs in enumerate(sums):
            weight[output, list(inputs)] = 1.0
    weight.requires_grad_(False)


def _build_definition(definition: Mapping[str, Any]) -> nn.Module:
    """Build what a definition of this module states; it holds no other classes."""
    from monai.networks.layers import SkipConnection
    from monai.networks.nets import UNet

    given = {
        name: value for name, value in definition.items() if name != "_target_"
    }
    match definition["_target_"]:
        case "torch.nn.Sequential":
            return nn.Sequential(
                *(_build_definition(layer) for layer in given["layers"])
            )
        case "monai.networks.layers.SkipConnection":
            given["submodule"] = _build_definition(given["submodule"])
            return SkipConnection(**given)  # type: ignore[no-any-return]
        case "monai.networks.nets.UNet":
            return UNet(**given)  # type: ignore[no-any-return]
        case "torch.nn.Softmax":
            return nn.Softmax(**given)
        case "torch.nn.Conv2d":
            return nn.Conv2d(**given)
        case "torch.nn.Conv3d":
            return nn.Conv3d(**given)
        case other:
            raise TypeError(f"{other} is not a part of a refiner")


def get_trainable_part(refining: nn.Module) -> nn.Module:
    """Return the part of a refining network that learns: R and its scale."""
    return refining.get_submodule("1.submodule.1")


def merge_weights(
    spec: BundleSpec, coarse: Weights, refiner: Weights
) -> Weights:
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
    state = network.state_dict()  # its fixed layers keep what they have
    for name, value in coarse.items():
        state[f"{COARSE}{name}"] = value
    for name, value in refiner.items():
        state[f"{_LEARNED}{name}"] = value
    missing = _list_missing(network, coarse, refiner)
    try:
        if missing:
            raise RuntimeError(f"missing: {', '.join(missing)}")
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            "the weights of the network and of its refiner are not those bundle.json describes",
            detail=str(error).splitlines()[-1].strip(),
        ) from error


def _list_missing(
    network: nn.Module, coarse: Weights, refiner: Weights
) -> list[str]:
    """Return the names of learned weights that were not given."""
    missing = []
    for name in network.state_dict():
        if name.startswith(COARSE) and name.removeprefix(COARSE) not in coarse:
            missing.append(name)
        if (
            name.startswith(_LEARNED)
            and name.removeprefix(_LEARNED) not in refiner
        ):
            missing.append(name)
    return missing


def select_coarse_weights(weights: Weights) -> dict[str, torch.Tensor]:
    """Return the network's own weights out of a bundle's, refined or not."""
    if not any(name.startswith(COARSE) for name in weights):
        return dict(weights)
    coarse = {}
    for name, value in weights.items():
        if name.startswith(COARSE):
            coarse[name.removeprefix(COARSE)] = value
    return coarse
