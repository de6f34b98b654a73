"""MONAI without the packages that it can do without, until one of them is used.

``import monai`` imports MLflow, pandas, matplotlib, scikit-learn and more, in case someone uses
what needs them: most of the time that a short command takes. A process of which is known what it
does, such as ``medseg segment``, imports those that it uses, when it first does.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from types import ModuleType, SimpleNamespace
from typing import Any

_MODULE = "monai.utils.module"
"""Where MONAI has ``optional_import``, which all its other modules import from there."""

_ENGINES = "ignite"
"""MONAI derives classes from this package's, for training alone; they cannot be had later."""

_NOTEBOOKS = "monai.utils.jupyter_utils"
_PLOTS = "matplotlib.pyplot"
"""What MONAI's helpers for notebooks import by themselves, if it is there."""

_ABSENT = "medseg.absent"

_UNDERSTOOD = {"module", "version", "version_checker", "name", "descriptor"}

OptionalImport = Callable[..., tuple[Any, bool]]


def defer_optional_packages() -> None:
    """Let MONAI, where it is not imported yet, import optional packages when it uses them.

    For processes that train nothing: MONAI's engines for training cannot be used in them.
    """
    if _MODULE not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the modules of MONAI that import, or have others import, optional packages."""

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's spec, with a loader that changes it; ``None`` for others."""
        if fullname not in (_MODULE, _NOTEBOOKS):
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Loads a module of MONAI without the packages that it wants."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as Python does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code, and defer what it imports."""
        if module.__name__ == _NOTEBOOKS:
            with hidden(_PLOTS):
                self._loader.exec_module(module)
            return
        self._loader.exec_module(module)
        module.optional_import = _defer(module.optional_import)  # type: ignore[attr-defined]


@contextlib.contextmanager
def hidden(name: str) -> Iterator[None]:
    """Let a module seem absent, unless it is imported already."""
    if name in sys.modules:
        yield
        return
    # Python's sign for a module that is absent.
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def _defer(optional_import: OptionalImport) -> OptionalImport:
    signature = inspect.signature(optional_import)

    def import_or_defer(*args: Any, **options: Any) -> tuple[Any, bool]:
        given = signature.bind(*args, **options).arguments
        module = given["module"]
        package = module.partition(".")[0]
        if package == _ENGINES:
            given["module"] = _ABSENT
        elif given.keys() <= _UNDERSTOOD and _is_found(package, given):
            return _Deferred(module, given.get("name", "")), True
        return optional_import(**given)

    return import_or_defer


def _is_found(package: str, given: Mapping[str, Any]) -> bool:
    """Tell whether a package is installed, in a version that will do."""
    installed = _find_version(package)
    version = given.get("version")
    if not version:
        return installed is not None
    checker = given.get("version_checker")
    if not installed or checker is None:
        return False
    return bool(checker(SimpleNamespace(__version__=installed), version))


@cache
def _find_version(package: str) -> str | None:
    """Return a package's version, empty if nobody says; ``None`` if it is not installed."""
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return version_of(package)
    except PackageNotFoundError:
        return ""


class _Deferred:
    """Stands for a module, or for something in it, and imports it when it is used.

    Args:
        module: The module's full name.
        name: Of what is in it; empty for the module itself.
    """

    def __init__(self, module: str, name: str) -> None:
        self._import = (module, name)

    def _get(self) -> Any:
        module, name = self._import
        imported = importlib.import_module(module)
        return getattr(imported, name) if name else imported

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._get(), attribute)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._get()(*args, **options)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._get())
