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
    "medseg.tools.naming": "medseg.datasets.names",
    "medseg.words.errors": "medseg.errors",
    "medseg.words.quality": "medseg.quality.estimates",
}
"""Former name → today's. The packages ``engine``, ``tools`` and ``words`` exist no more."""


class FormerModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds today's module under a former name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for a former name, or for a package that held some."""
        if fullname in FORMER_MODULES:
            return importlib.machinery.ModuleSpec(fullname, self)
        if any(name.startswith(f"{fullname}.") for name in FORMER_MODULES) and fullname != "medseg":
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Return today's module itself, so that classes and errors are the same objects."""
        today = FORMER_MODULES.get(spec.name)
        return None if today is None else importlib.import_module(today)

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing: today's module has been run."""


def install() -> None:
    """Make former names importable; does nothing the second time."""
    if not any(isinstance(finder, FormerModules) for finder in sys.meta_path):
        sys.meta_path.append(FormerModules())
