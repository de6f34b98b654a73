"""The network a bundle asks for, made of MONAI classes alone."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any, cast

import torch
from torch import nn

from medseg.bundle.spec import GROUPS, BundleSpec, NamedNetworkSpec, UNetSpec
from medseg.errors import BundleError, Fault, MissingExtraError

NetworkDefinition = dict[str, Any]
"""A network as MONAI's configs write it: its class under ``_target_``, and its arguments."""

# Arguments by which some MONAI networks fetch or open files: a bundle is data, so none is set.
_FETCHES = re.compile(r"pretrained|url|path|checkpoint|ckpt|file|weights", re.IGNORECASE)
_FETCHING_CLASSES = ("Transchex",)
"""Classes that fetch whatever their arguments are."""

# What medseg passes by itself, under the names MONAI's classes have for it.
_DIMS = ("spatial_dims", "dimensions")
_INPUTS = ("in_channels", "in_channel")
_OUTPUTS = ("out_channels", "num_classes", "n_classes")
_MONAI_REFUSALS = (
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    AssertionError,
)


def define_network(spec: BundleSpec, supervised: bool = True) -> NetworkDefinition:
    """State the network as data, for MONAI's configs and for ``build_network``.

    Args:
        spec: The bundle.
        supervised: Whether to include what only training uses: the outputs of coarse levels.

    Returns:
        ``_target_`` (a class of ``monai.networks.nets``) and keyword arguments. The network
        maps ``(batch, channels, *patch)`` to logits, one channel for background and each label,
        or for each region.

    Raises:
        BundleError: If the class is not a MONAI network or cannot take these arguments.
    """
    network = spec.network
    if isinstance(network, UNetSpec):
        arguments = _unet_arguments(network, spec)
        arguments["deep_supervision"] = supervised and arguments["deep_supervision"]
        return {"_target_": "monai.networks.nets.DynUNet", **arguments}
    return {
        "_target_": f"monai.networks.nets.{network.kind}",
        **_given_arguments(network, len(spec.channels), spec.label_set.channels),
    }


def _unet_arguments(network: UNetSpec, spec: BundleSpec) -> dict[str, Any]:
    strides = [list(stride) for stride in network.level_strides]
    heads = len(strides) - 2
    norms: dict[str, Any] = {
        "instance": ["INSTANCE", {"affine": True}],
        "batch": "BATCH",
        "group": ["GROUP", {"num_groups": GROUPS, "affine": True}],
    }
    return {
        "spatial_dims": network.dims,
        "in_channels": len(spec.channels),
        "out_channels": spec.label_set.channels,
        "kernel_size": [list(kernel) for kernel in network.level_kernels],
        "strides": strides,
        "upsample_kernel_size": strides[1:],
        "filters": list(network.level_channels),
        "norm_name": norms[network.norm],
        "dropout": network.dropout or None,
        "res_block": network.residual,
        "deep_supervision": network.deep_supervision and heads > 0,
        "deep_supr_num": max(heads, 1),
    }


def _given_arguments(network: NamedNetworkSpec, inputs: int, outputs: int) -> dict[str, Any]:
    allowed = _parameters(_network_class(network.kind))
    values = ((_DIMS, network.dims), (_INPUTS, inputs), (_OUTPUTS, outputs))
    own = {name: value for names, value in values for name in names if name in allowed}
    # Some classes fetch weights unless they are told not to.
    own |= {
        name: False
        for name, parameter in allowed.items()
        if name.startswith("pretrained") and parameter.default is True
    }
    faults = []
    for name, value in network.args.items():
        if _could_fetch(name, value):
            why = "arguments that open files or addresses are refused"
        elif name in own:
            why = "medseg sets it from the bundle's channels, labels and network.dims; leave it out"
        elif name not in allowed:
            free = ", ".join(name for name in allowed if name not in own)
            why = f"{network.kind} has no such argument; it has {free}"
        else:
            continue
        faults.append(Fault(f"network.args.{name}", why))
    if faults:
        raise BundleError("the bundle's network cannot be built", faults)
    return own | dict(network.args)


def _parameters(network: type[nn.Module]) -> dict[str, inspect.Parameter]:
    """Return a class' own named arguments."""
    parameters = list(inspect.signature(network.__init__).parameters.values())[1:]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name: parameter for parameter in parameters if parameter.kind in named}


def _could_fetch(name: str, value: Any) -> bool:
    # `use_checkpoint=True` only saves memory; `pretrained=True` fetches weights.
    return (
        bool(value)
        and bool(_FETCHES.search(name))
        and (value is not True or name.startswith("pretrained"))
    )


def _network_class(kind: str) -> type[nn.Module]:
    nets = importlib.import_module("monai.networks.nets")
    found = getattr(nets, kind, None)
    if not _maps_channels(found):
        known = sorted({item.__name__ for item in vars(nets).values() if _maps_channels(item)})
        raise BundleError(
            "the bundle's network cannot be built",
            [
                Fault(
                    "network.kind",
                    f"'{kind}' is no network of MONAI that turns channels into classes; known: "
                    f"{', '.join(known)}",
                )
            ],
        )
    return cast("type[nn.Module]", found)


def _maps_channels(item: Any) -> bool:
    """Tell whether this is a network class that can be told its input and output channels."""
    if not (inspect.isclass(item) and issubclass(item, nn.Module)):
        return False
    names = _parameters(item)
    told = all(any(name in names for name in group) for group in (_INPUTS, _OUTPUTS))
    return told and item.__name__ not in _FETCHING_CLASSES


def build_network(spec: BundleSpec, supervised: bool = True) -> nn.Module:
    """Build the bundle's network, randomly initialised from the global torch seed.

    Args:
        spec: The bundle.
        supervised: Whether to include what only training uses.

    Returns:
        A network as ``define_network`` describes.

    Raises:
        BundleError: If MONAI refuses the arguments.
    """
    definition = dict(define_network(spec, supervised))
    name = str(definition.pop("_target_")).rpartition(".")[2]
    try:
        return _network_class(name)(**definition)
    except ImportError as error:
        package = str(error).partition("No module named ")[2].partition(")")[0].strip("'") or "it"
        raise MissingExtraError(
            f"{name} needs the package {package}: pip install {package}"
        ) from error
    except _MONAI_REFUSALS as error:
        raise BundleError(
            "the bundle's network cannot be built", [Fault("network", _monai_says(error))]
        ) from error


def try_network(spec: BundleSpec) -> None:
    """Pass a patch through the network, to see that it fits.

    Args:
        spec: The bundle.

    Raises:
        BundleError: If the network cannot be built, cannot take the patch, or does not return
            one logit per class for each voxel of it.
    """
    try:
        _pass_a_patch(spec, "meta")  # neither memory nor arithmetic
    except BundleError as error:
        if "meta" not in str(error):
            raise
        _pass_a_patch(spec, "cpu")  # some networks compute with values while being built


def _pass_a_patch(spec: BundleSpec, device: str) -> None:
    patch = list(spec.training.patch)
    with torch.device(device), torch.no_grad():
        network = build_network(spec)
        # Batch norms cannot learn from one value; a second patch shows more than a hundredth.
        batch = min(spec.training.batch_size, 2)
        try:
            image = torch.zeros(batch, len(spec.channels), *patch)
            answer = network.eval()(image)
            levels = list_levels(SupervisedNetwork(network.train())(image))
        except _MONAI_REFUSALS as error:
            raise BundleError(
                "the network cannot take the patch",
                [Fault("training.patch", f"{patch}: {_monai_says(error)}")],
            ) from error
    wanted = [batch, spec.label_set.channels, *patch]
    found = [list(level.shape) for level in (*list_levels(answer)[:1], *levels)]
    fits = [shape == wanted for shape in found[:2]]
    fits += [shape[:2] == wanted[:2] and len(shape) == len(wanted) for shape in found[2:]]
    if len(found) < 2 or not all(fits):
        raise BundleError(
            "the network does not return a label for every voxel",
            [
                Fault(
                    "network",
                    f"an input of {[batch, len(spec.channels), *patch]} gives outputs of "
                    f"{', '.join(str(shape) for shape in found)}; {wanted} is needed. Change "
                    "training.patch or the network's arguments",
                )
            ],
        )
    _refuse_lists(answer, spec)


def _refuse_lists(answer: Any, spec: BundleSpec) -> None:
    """Refuse what some networks answer outside training: lists, where one tensor is needed."""
    outputs, refinement = len(list_levels(answer)), spec.refinement
    if outputs > 1:
        raise BundleError(
            "the network answers several times where labels are made",
            [Fault("network.args", f"it gives {outputs} outputs; switch its deep supervision off")],
        )
    is_refined = refinement is not None and refinement.kind == "corrector"
    if is_refined and not isinstance(answer, torch.Tensor):
        what = f"{spec.network.kind} answers in a list, which no refiner takes; set it to null"
        raise BundleError("the network cannot be refined", [Fault("refinement", what)])


def _monai_says(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return f"MONAI says: {lines[0]}"


def select_inference_weights(network: nn.Module, spec: BundleSpec) -> dict[str, torch.Tensor]:
    """Return the weights of a trained network that inference needs, by name."""
    if not isinstance(spec.network, UNetSpec):
        return network.state_dict()
    with torch.device("meta"):
        wanted = build_network(spec, supervised=False).state_dict().keys()
    return {name: value for name, value in network.state_dict().items() if name in wanted}


def list_levels(output: Any) -> list[torch.Tensor]:
    """Return a network's outputs from fine to coarse, whatever form its class gives them.

    Some MONAI networks return a list while training (``SegResNetDS``), some a stack of levels
    ``(batch, level, class, …)``, most a single tensor.
    """
    if isinstance(output, list | tuple):
        return [level for level in output if isinstance(level, torch.Tensor)]
    return [output]


class FinestLevel(nn.Module):
    """A network that returns the scores of its finest level and nothing else.

    Args:
        network: Its parameters are shared, not copied.
        channels: Which of its channels to return; all unless given.
    """

    def __init__(self, network: nn.Module, channels: slice = slice(None)) -> None:
        super().__init__()
        self.network = network
        self._channels = channels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, channels, *patch)`` to logits ``(batch, classes, *patch)``."""
        return list_levels(self.network(image))[0][:, self._channels]


class SupervisedNetwork(nn.Module):
    """A network in training: returns its logits at every supervised level, fine to coarse.

    ``DynUNet`` enlarges its coarse outputs to full size before it returns them; scoring them at
    their own size costs a fraction and learns the same (as nnU-Net does), so its levels are read
    before that.

    Args:
        network: What ``build_network`` made; its parameters are shared, not copied.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Map ``(batch, channels, *patch)`` to a list of logits, each ``(batch, classes, …)``."""
        heads = getattr(self.network, "heads", None)
        if not (isinstance(heads, list) and getattr(self.network, "deep_supervision", False)):
            return list_levels(self.network(image))
        finest = self.network.output_block(self.network.skip_layers(image))  # type: ignore[operator]
        return [finest, *heads]
