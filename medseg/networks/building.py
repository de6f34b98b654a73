"""Building the network a bundle asks for, and seeing that it fits."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from medseg.bundle.spec import BundleSpec, StagedUNetSpec, UNetSpec
from medseg.errors import BundleError, Fault, MissingExtraError
from medseg.networks.definition import define_network
from medseg.networks.levels import SupervisedNetwork, list_levels
from medseg.networks.registry import get_network_class
from medseg.networks.staged_unet import build_staged_unet

# What network classes raise on arguments and patches they cannot take.
_REFUSALS = (
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    AssertionError,
)

_MISSING_PACKAGE = re.compile(r"No module named '?([\w.-]+)")


def build_network(spec: BundleSpec, supervised: bool = True) -> nn.Module:
    """Build the bundle's network, randomly initialised from the global torch seed.

    Args:
        spec: The bundle.
        supervised: Whether to include what only training uses.

    Returns:
        A network as ``define_network`` describes.

    Raises:
        BundleError: If its class refuses the arguments.
        MissingExtraError: If its class needs a package that is not installed.
    """
    network = spec.network
    if isinstance(network, StagedUNetSpec):
        channels = spec.input_channels
        classes = spec.label_set.channels
        return build_staged_unet(
            network, channels, classes, supervised=supervised
        )
    arguments = define_network(spec, supervised)
    target = str(arguments.pop("_target_"))
    name = target.rpartition(".")[2]
    kind = name if isinstance(network, UNetSpec) else network.kind
    try:
        return get_network_class(kind)(**arguments)
    except ImportError as error:
        missing = _MISSING_PACKAGE.search(str(error))
        if missing is None:
            raise MissingExtraError(
                f"{name} needs a package that is not installed"
            ) from error
        package = missing.group(1)
        raise MissingExtraError(
            f"{name} needs the package {package}: pip install {package}"
        ) from error
    except _REFUSALS as error:
        fault = Fault("network", f"{name} says: {_first_line(error)}")
        raise BundleError(
            "the bundle's network cannot be built", [fault]
        ) from error


def build_for_shapes(spec: BundleSpec, supervised: bool = False) -> nn.Module:
    """Build a network for its shapes alone: without memory for its weights, if it can be.

    Args:
        spec: The bundle.
        supervised: Whether to include what only training uses.

    Raises:
        BundleError: As ``build_network``.
    """
    try:
        with torch.device("meta"):
            return build_network(spec, supervised)
    except BundleError as error:
        if "meta" not in str(error):
            raise
    # Some networks compute with values when they are built, which "meta" tensors cannot.
    with torch.random.fork_rng(devices=[]):
        return build_network(spec, supervised)


def try_network(spec: BundleSpec) -> None:
    """Pass a patch through the network, to see that it fits.

    Args:
        spec: The bundle.

    Raises:
        BundleError: If the network cannot be built, cannot take the patch, or does not return
            one logit per class for each voxel of it.
        MissingExtraError: If it needs a package that is not installed.
    """
    try:
        _try_patch(spec, "meta")  # neither memory nor arithmetic
    except BundleError as error:
        if "meta" not in str(error):
            raise
        # Some networks compute with values while being built.
        _try_patch(spec, "cpu")


def _try_patch(spec: BundleSpec, device: str) -> None:
    # Batch norms cannot learn from one value; a second patch shows more than a hundredth.
    batch = min(spec.training.batch_size, 2)
    patch = list(spec.training.patch)
    with torch.device(device), torch.no_grad():
        network = build_network(spec)
        image = torch.zeros(batch, spec.input_channels, *patch)
        try:
            output = network.eval()(image)
            levels = list_levels(SupervisedNetwork(network.train())(image))
        except _REFUSALS as error:
            fault = Fault(
                "training.patch",
                f"{patch}: the network says: {_first_line(error)}",
            )
            raise BundleError(
                "the network cannot take the patch", [fault]
            ) from error
    _check_shapes(output, levels, list(image.shape), spec)
    _refuse_lists(output, spec)


def _check_shapes(
    output: Any, levels: list[torch.Tensor], given: list[int], spec: BundleSpec
) -> None:
    """Refuse a network that does not return a label for every voxel."""
    batch, _, *patch = given
    wanted = [batch, spec.label_set.channels, *patch]
    finest = [list(level.shape) for level in list_levels(output)[:1]]
    trained = [list(level.shape) for level in levels]
    # The finest level of inference and of training must be full; coarser ones only fit in kind.
    full = [*finest, *trained[:1]]
    coarse = trained[1:]
    is_full = len(full) == 2 and all(shape == wanted for shape in full)
    if is_full and all(_is_coarser(shape, wanted) for shape in coarse):
        return
    shapes = ", ".join(str(shape) for shape in [*finest, *trained])
    what = (
        f"an input of {given} gives outputs of {shapes}; {wanted} is needed. Change "
        "training.patch or the network's arguments"
    )
    raise BundleError(
        "the network does not return a label for every voxel",
        [Fault("network", what)],
    )


def _is_coarser(shape: list[int], wanted: list[int]) -> bool:
    return shape[:2] == wanted[:2] and len(shape) == len(wanted)


def _refuse_lists(output: Any, spec: BundleSpec) -> None:
    """Refuse what some networks return outside training: lists, where one tensor is needed."""
    outputs = len(list_levels(output))
    if outputs > 1:
        what = f"it gives {outputs} outputs; switch its deep supervision off"
        raise BundleError(
            "the network returns several outputs where labels are made",
            [Fault("network.args", what)],
        )
    refinement = spec.refinement
    has_refiner = refinement is not None and refinement.kind == "corrector"
    if has_refiner and not isinstance(output, torch.Tensor):
        what = f"{spec.network.kind} returns a list, which no refiner takes; set it to null"
        raise BundleError(
            "the network cannot be refined", [Fault("refinement", what)]
        )


def select_inference_weights(
    network: nn.Module, spec: BundleSpec
) -> dict[str, torch.Tensor]:
    """Return the weights of a trained network that inference needs, by name."""
    weights = network.state_dict()
    if not isinstance(spec.network, UNetSpec):
        return weights
    wanted = build_for_shapes(spec).state_dict().keys()
    return {name: value for name, value in weights.items() if name in wanted}


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
