"""Networks by name: any of MONAI's, and those that installed packages register.

Contract of a registered network (entry-point group ``medseg.networks``): a ``torch.nn.Module``
class

* whose constructor takes keyword arguments for input and output channels, and for dimensions if
  it can be both 2D and 3D, under names that MONAI's classes have for them (``in_channels``,
  ``out_channels``, ``spatial_dims``);
* that maps ``(batch, in_channels, *patch)`` to logits ``(batch, out_channels, *patch)``, or while
  training to a list of logits from fine to coarse, the finest first;
* that opens no file and no address when it is built: a bundle is data.

``medseg.testing.networks.NetworkContract`` tests it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from torch import nn

from medseg._support.registry import Registry
from medseg.errors import BundleError, Fault

DIMENSION_NAMES = ("spatial_dims", "dimensions")
INPUT_NAMES = ("in_channels", "in_channel")
OUTPUT_NAMES = ("out_channels", "num_classes", "n_classes")
"""Names that network classes have for what medseg passes by itself."""

_FETCHING_CLASSES = ("Transchex",)
"""Classes of MONAI's that fetch weights whatever their arguments are."""

_MONAI = "monai.networks.nets"


def _check_network(network: Any) -> None:
    """Refuse what cannot be told its channels.

    Raises:
        TypeError: If it is not such a class.
    """
    if not maps_channels(network):
        raise TypeError(
            "a network is a torch.nn.Module class that takes in_channels and out_channels"
        )


NETWORKS: Registry[type[nn.Module]] = Registry(
    "medseg.networks", "network", {}, check=_check_network
)
"""Networks that packages add. MONAI's own need no entry, and their names cannot be taken."""


def get_network_class(kind: str) -> type[nn.Module]:
    """Return a network class by its name: MONAI's, or one that a package registers.

    Raises:
        BundleError: If there is none, or it cannot be told its channels.
        MissingExtraError: If the package that registers it cannot be loaded.
    """
    monai = list_monai_networks()
    if kind in monai:
        return monai[kind]
    if kind in NETWORKS.names:
        return NETWORKS.get(kind)
    known = ", ".join([*NETWORKS.names, *sorted(monai)])
    what = f"'{kind}' is not a network that turns channels into classes; known: {known}"
    raise BundleError(
        "the bundle's network cannot be built", [Fault("network.kind", what)]
    )


@cache
def list_monai_networks() -> Mapping[str, type[nn.Module]]:
    """Return MONAI's network classes that can be told their channels, by name."""
    nets = importlib.import_module(_MONAI)
    classes = [item for item in vars(nets).values() if maps_channels(item)]
    return {network.__name__: network for network in classes}


def get_target(kind: str) -> str:
    """Return the dotted name of a network's class, for MONAI's configs."""
    if kind in list_monai_networks():
        return f"{_MONAI}.{kind}"
    network = get_network_class(kind)
    return f"{network.__module__}.{network.__qualname__}"


def maps_channels(item: Any) -> bool:
    """Tell whether this is a network class that can be told its input and output channels."""
    if not (inspect.isclass(item) and issubclass(item, nn.Module)):
        return False
    if item.__name__ in _FETCHING_CLASSES:
        return False
    names = list_parameters(item).keys()
    return not names.isdisjoint(INPUT_NAMES) and not names.isdisjoint(
        OUTPUT_NAMES
    )


def list_parameters(network: type[nn.Module]) -> dict[str, inspect.Parameter]:
    """Return the named arguments of a class's own constructor."""
    constructor = cast(Any, network).__init__
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    named = (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    return {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in named
    }
