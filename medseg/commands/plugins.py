"""``medseg plugins``: what medseg and installed packages register, by name."""

from __future__ import annotations

from typing import Any

from medseg._support.registry import Plugin, Registry
from medseg.inference.backends.loading import BACKENDS
from medseg.inference.result_files import RESULT_FORMATS
from medseg.io.registry import IMAGE_FORMATS
from medseg.layouts.registry import LAYOUTS
from medseg.networks.registry import NETWORKS
from medseg.training.losses import LOSSES

REGISTRIES: tuple[Registry[Any], ...] = (
    IMAGE_FORMATS,
    LAYOUTS,
    NETWORKS,
    LOSSES,
    BACKENDS,
    RESULT_FORMATS,
)
"""Every registry that packages can add to."""


def list_plugins() -> list[Plugin]:
    """List every registered name with the package that provides it.

    What packages add is loaded, so that ``problem`` says what is wrong with each; one that cannot
    be loaded is listed like the others.
    """
    plugins: list[Plugin] = []
    for registry in REGISTRIES:
        plugins.extend(registry.plugins(load=True))
    return plugins
