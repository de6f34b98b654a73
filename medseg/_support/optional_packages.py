"""MONAI without the packages that few of its parts use, until one of them is used.

``import monai`` imports MLflow, pandas, matplotlib, scikit-learn and more, in case someone uses
what needs them: most of the time that segmenting a small scan takes. Here it is imported without;
once that is done nothing is left that would change what others import.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import getpass
import importlib
import importlib.util
import inspect
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from types import ModuleType, SimpleNamespace
from typing import Any

_MONAI = "monai"
_MODULE = "monai.utils.module"
"""Where MONAI has ``optional_import``, which all its other modules import from there."""

_DEFERRED = (
    "matplotlib",
    "mlflow",
    "nibabel",
    "pandas",
    "pydicom",
    "requests",
    "scipy",
    "skimage",
    "sklearn",
    "tensorboard",
    "tensorboardX",
    "torch.utils.tensorboard",
    "torchvision",
    "transformers",
)
"""What takes long to import; of others MONAI looks whether they can be imported at all."""

_NEEDS = {"torch.utils.tensorboard": "tensorboard"}
"""Module → the package without which it cannot be imported, where that is not its own."""

_USER = "LOGNAME"
"""The variable where ``getpass.getuser`` looks first."""

_ENGINES = "ignite"
"""MONAI derives classes from this package's, for training alone; they cannot be had later."""

_NOTEBOOKS = "monai.utils.jupyter_utils"
_PLOTS = "matplotlib.pyplot"
"""What MONAI's helpers for notebooks import by themselves, if it is there."""

_ABSENT = "medseg.absent"

_UNDERSTOOD = {"module", "version", "version_checker", "name", "descriptor"}

OptionalImport = Callable[..., tuple[Any, bool]]

_lock = threading.Lock()
_hiding = threading.Lock()
_hidden: Counter[str] = Counter()
"""Module → how many threads let it seem absent."""
_without_engines = threading.Event()


def forgo_engines() -> None:
    """Let ``import_monai`` leave out what trains: for a process that is known to train nothing."""
    _without_engines.set()


def import_monai() -> None:
    """Import MONAI, unless it is imported, and the packages in ``_DEFERRED`` when it uses them.

    Modules of MONAI that are imported later, and what others import, are as they always are.
    """
    with _lock:
        if _MONAI in sys.modules:
            return
        finder = _Finder()
        sys.meta_path.insert(0, finder)
        try:
            with named_user():
                importlib.import_module(_MONAI)
        finally:
            sys.meta_path.remove(finder)
            finder.is_done = True


@contextlib.contextmanager
def named_user() -> Iterator[None]:
    """Give the user a name, if it has none: MONAI asks for it as it is imported.

    In containers the number of a user is often made up, and nobody there knows it.
    """
    if _has_name():
        yield
        return
    former = os.environ.get(_USER)
    os.environ[_USER] = "unknown"
    try:
        yield
    finally:
        del os.environ[_USER]
        if former is not None:
            os.environ[_USER] = former


def _has_name() -> bool:
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        return False
    return True


class _Finder(MetaPathFinder):
    """Finds the modules of MONAI that import, or have others import, optional packages.

    Attributes:
        is_done: Whether MONAI is imported, so that nothing is deferred any more.
    """

    def __init__(self) -> None:
        self.is_done = False

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's spec, with a loader that changes it; ``None`` for others."""
        if fullname not in (_MODULE, _NOTEBOOKS):
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec


class _Loader(Loader):
    """Loads a module of MONAI without the packages that it wants."""

    def __init__(self, loader: Loader, finder: _Finder) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as Python does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code, and defer what it imports."""
        if module.__name__ == _NOTEBOOKS:
            own = {"__import__": _import_or_defer_plots}
            module.__dict__["__builtins__"] = vars(builtins) | own
        self._loader.exec_module(module)
        if module.__name__ == _MODULE:
            original = module.__dict__["optional_import"]
            module.__dict__["optional_import"] = _defer(original, self._finder)


def _import_or_defer_plots(name: str, *args: Any, **options: Any) -> Any:
    """Take the place of ``import`` in one module."""
    if name != _PLOTS or _find_version("matplotlib") is None:
        return __import__(name, *args, **options)
    return SimpleNamespace(pyplot=_Deferred(_PLOTS))


@contextlib.contextmanager
def hidden(name: str) -> Iterator[None]:
    """Let a module seem absent, unless it is imported already."""
    with _hiding:
        is_imported = name in sys.modules and name not in _hidden
        if not is_imported:
            _hidden[name] += 1
            # Python's sign for a module that is absent.
            sys.modules[name] = None  # type: ignore[assignment]
    if is_imported:
        yield
        return
    try:
        yield
    finally:
        with _hiding:
            _hidden[name] -= 1
            # Until the last of the threads that hide it is done.
            if not _hidden[name]:
                del _hidden[name]
                sys.modules.pop(name, None)


def _defer(optional_import: OptionalImport, finder: _Finder) -> OptionalImport:
    """Return what imports optional packages later, as long as MONAI is being imported."""
    signature = inspect.signature(optional_import)

    @functools.wraps(optional_import)
    def import_or_defer(*args: Any, **options: Any) -> tuple[Any, bool]:
        if finder.is_done:
            return optional_import(*args, **options)
        given = signature.bind(*args, **options).arguments
        module = given["module"]
        package = module.partition(".")[0]
        if package == _ENGINES and _without_engines.is_set():
            given["module"] = _ABSENT
        elif _can_wait(module, given) and _is_found(module, given):
            return _Deferred(module, given.get("name", "")), True
        return optional_import(**given)

    return import_or_defer


def _can_wait(module: str, given: Mapping[str, Any]) -> bool:
    """Tell whether a module takes long to import, and nothing is asked that needs it now."""
    if not given.keys() <= _UNDERSTOOD:
        return False
    return any(f"{module}.".startswith(f"{name}.") for name in _DEFERRED)


def _is_found(module: str, given: Mapping[str, Any]) -> bool:
    """Tell whether a module's package is installed, in a version that will do."""
    package = _NEEDS.get(module, module.partition(".")[0])
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

    def __init__(self, module: str, name: str = "") -> None:
        self._import = (module, name)

    def _get(self) -> Any:
        module, name = self._import
        imported = importlib.import_module(module)
        return getattr(imported, name) if name else imported

    def __reduce__(self) -> tuple[Any, ...]:
        return _Deferred, self._import

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._get(), attribute)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._get()(*args, **options)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._get())

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._get())
