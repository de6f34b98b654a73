"""Names that modules had in earlier releases, for files that still import them.

MLflow copies the code of a model into the model. Models logged by medseg 0.1.0 import modules by
the names they had then, so these names go on working; nothing in medseg uses them.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

FORMER_MODULES = {
    "medseg.engine.segmenter": "medseg.inference.segmenter",
    "medseg.tools.images": "medseg.io",
    "medseg.tools.naming": "medseg.names",
    "medseg.words.errors": "medseg.errors",
    "medseg.words.quality": "medseg.quality.estimates",
}
"""Former name → today's."""

_FORMER_PACKAGES = frozenset(name.rpartition(".")[0] for name in FORMER_MODULES)
"""``medseg.engine``, ``medseg.tools`` and ``medseg.words``, which exist no more."""


class FormerModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds today's module under a former name."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for a former name, or for a package that held some."""
        if fullname in FORMER_MODULES:
            return importlib.machinery.ModuleSpec(fullname, self)
        if fullname in _FORMER_PACKAGES:
            return importlib.machinery.ModuleSpec(
                fullname, self, is_package=True
            )
        return None

    def create_module(
        self, spec: importlib.machinery.ModuleSpec
    ) -> ModuleType | None:
        """Return today's module itself, so that classes and errors are the same objects.

        ``None``, an empty module, for a package that held some.
        """
        if spec.name not in FORMER_MODULES:
            return None
        return importlib.import_module(FORMER_MODULES[spec.name])

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing: today's module has been run."""


def install() -> None:
    """Make former names importable; does nothing the second time."""
    is_installed = any(
        isinstance(finder, FormerModules) for finder in sys.meta_path
    )
    if not is_installed:
        # First: the finder of an editable install may know modules of an earlier checkout.
        sys.meta_path.insert(0, FormerModules())
