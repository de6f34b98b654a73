"""Shims for the packages that MONAI Label 0.8.5 imports and medseg never uses of it.

They are too old for numpy 2 (numpymaxflow, pydicom-seg), very large (itk, torchvision), or for
other stores (girder-client). Each can go when MONAI Label no longer imports it at start.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

UNUSED: dict[str, Sequence[str]] = {
    "numpymaxflow": ("maxflow",),
    "pydicom_seg": (),
    "girder_client": ("GirderClient",),
    "itk": (),
    "torchvision": (),
    "torchvision.utils": ("make_grid", "save_image"),
}
"""Module → the names MONAI Label takes from it while it is imported."""


def install_shims() -> None:
    """Put an empty module in the place of each package that is not installed."""
    absent = [name for name in UNUSED if not _is_installed(name)]
    for name in absent:
        if name not in sys.modules:
            sys.modules[name] = _make_shim(name, UNUSED[name])


def _is_installed(name: str) -> bool:
    package = name.partition(".")[0]
    return importlib.util.find_spec(package) is not None


def _make_shim(name: str, attributes: Sequence[str]) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    for attribute in attributes:
        refuse = _make_refusal(f"{name}.{attribute}")
        setattr(module, attribute, refuse)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return module


def _make_refusal(name: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(
            f"{name} is not installed; medseg label does without it"
        )

    return refuse
