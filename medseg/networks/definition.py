"""A bundle's network as data, the way MONAI's configs write it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from medseg.bundle.spec import (
    BundleSpec,
    NamedNetworkSpec,
    StagedUNetSpec,
    UNetSpec,
)
from medseg.errors import BundleError, Fault
from medseg.networks.registry import (
    DIMENSION_NAMES,
    INPUT_NAMES,
    OUTPUT_NAMES,
    get_network_class,
    get_target,
    list_parameters,
)
from medseg.networks.staged_unet import define_staged_unet
from medseg.networks.unet import NetworkDefinition, define_unet

# Arguments by which some MONAI networks fetch or open files: a bundle is data, so none is set.
_FETCHES = re.compile(
    r"pretrained|url|path|checkpoint|ckpt|file|weights", re.IGNORECASE
)


def define_network(
    spec: BundleSpec, supervised: bool = True
) -> NetworkDefinition:
    """State the network as data, for MONAI's configs and for ``build_network``.

    Args:
        spec: The bundle.
        supervised: Whether to include what only training uses: the outputs of coarse levels.

    Returns:
        ``_target_`` (a class of ``monai.networks.nets``, of nnU-Net's package, or of the package
        that registers it) and keyword arguments. The network maps ``(batch, channels, *patch)`` to
        logits, one channel for background and each label, or for each region.

    Raises:
        BundleError: If there is no such network, or it cannot take these arguments.
    """
    network = spec.network
    if isinstance(network, UNetSpec):
        return define_unet(network, spec, supervised)
    if isinstance(network, StagedUNetSpec):
        return define_staged_unet(network, spec)
    arguments = _list_named_arguments(network, spec)
    return {"_target_": get_target(network.kind), **arguments}


def _list_named_arguments(
    network: NamedNetworkSpec, spec: BundleSpec
) -> dict[str, Any]:
    allowed = list_parameters(get_network_class(network.kind))
    own = _list_own_arguments(network, spec, allowed)
    faults = []
    for name, value in network.args.items():
        why = _refuse_argument(name, value, network.kind, own, allowed)
        if why:
            faults.append(Fault(f"network.args.{name}", why))
    if faults:
        raise BundleError("the bundle's network cannot be built", faults)
    return own | dict(network.args)


def _list_own_arguments(
    network: NamedNetworkSpec,
    spec: BundleSpec,
    allowed: Mapping[str, inspect.Parameter],
) -> dict[str, Any]:
    """Return what medseg passes by itself, under the names that the class has for it."""
    own: dict[str, Any] = {}
    for names, value in (
        (DIMENSION_NAMES, network.dims),
        (INPUT_NAMES, spec.input_channels),
        (OUTPUT_NAMES, spec.label_set.channels),
    ):
        for name in names:
            if name in allowed:
                own[name] = value
    for name, parameter in allowed.items():
        # Some classes fetch weights unless they are told not to.
        if name.startswith("pretrained") and parameter.default is True:
            own[name] = False
    return own


def _refuse_argument(
    name: str,
    value: Any,
    kind: str,
    own: Mapping[str, Any],
    allowed: Mapping[str, inspect.Parameter],
) -> str:
    """Say why a bundle may not set an argument; empty if it may."""
    if _could_fetch(name, value):
        return "arguments that open files or addresses are refused"
    if name in own:
        return "medseg sets it from the bundle's channels, labels and network.dims; leave it out"
    if name not in allowed:
        free = [known for known in allowed if known not in own]
        return f"{kind} has no such argument; it has {', '.join(free)}"
    return ""


def _could_fetch(name: str, value: Any) -> bool:
    if not value or not _FETCHES.search(name):
        return False
    # `use_checkpoint=True` only saves memory; `pretrained=True` fetches weights.
    return value is not True or name.startswith("pretrained")
