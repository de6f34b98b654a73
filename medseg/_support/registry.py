"""Registries: what medseg ships and what installed packages add, by name.

A package adds to medseg by an entry point, as in its ``pyproject.toml``::

    [project.entry-points."medseg.losses"]
    tversky = "my_package.losses:Tversky"

Registering is installing: a bundle may name what is registered here and nothing else, so a
stranger's bundle runs no code but that of packages someone installed on purpose.

The names of medseg itself cannot be taken: a package that registers one is ignored under that
name, and ``Registry.plugins`` says so. A name that two packages register belongs to neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Generic, TypeVar

from medseg.errors import MedsegError, MissingExtraError

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Plugin:
    """One name that a package registers.

    Attributes:
        group: The entry-point group, such as ``medseg.losses``.
        name: What a bundle or an option calls it.
        package: Who provides it, ``medseg`` or an installed distribution.
        version: That package's version.
        problem: Why it cannot be used; empty if nothing is known to be wrong. It may quote the
            package's own error, so it is for the person at the terminal.
    """

    group: str
    name: str
    package: str
    version: str
    problem: str = ""


class Registry(Generic[Part]):
    """Named parts of one kind: those of medseg, and those of installed packages.

    Entry points are looked up at first use and loaded when their name is asked for, so that a
    broken package harms only whoever names it.

    Args:
        group: The entry-point group, such as ``medseg.losses``.
        kind: What people call one part, as in ``loss``.
        shipped: Name → part, those of medseg itself.
        check: Raises ``TypeError`` or ``ValueError`` if a part does not keep the contract.

    Examples:
        >>> registry = Registry("medseg.shapes", "shape", {"sphere": "a ball"})
        >>> registry.get("sphere")
        'a ball'
        >>> registry.names
        ('sphere',)
    """

    def __init__(
        self,
        group: str,
        kind: str,
        shipped: Mapping[str, Part],
        check: Callable[[Part], None] | None = None,
    ) -> None:
        self.group = group
        self.kind = kind
        self._shipped = dict(shipped)
        self._check = check
        self._loaded: dict[str, Part] = {}
        self._broken: dict[str, MedsegError] = {}
        self._points: dict[str, list[metadata.EntryPoint]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name there is, medseg's own first."""
        added = sorted(
            name for name in self._entry_points() if name not in self._shipped
        )
        return (*self._shipped, *added)

    def get(self, name: str) -> Part:
        """Return the part of this name; medseg's own, where a package registers it too.

        Raises:
            MedsegError: If there is none, or two packages provide it.
            MissingExtraError: If the package that provides it cannot be loaded, or its part does
                not keep the contract.
        """
        if name in self._shipped:
            return self._shipped[name]
        if name in self._broken:
            raise self._broken[name]
        if name not in self._loaded:
            try:
                self._loaded[name] = self._load(name)
            except MissingExtraError as error:
                # Kept: a package that takes seconds to fail must not do so for every scan.
                self._broken[name] = error
                raise
        return self._loaded[name]

    def all(self) -> dict[str, Part]:
        """Return every part by name; loads what packages add.

        Raises:
            MedsegError: If one of them cannot be used; ``usable`` leaves those out.
        """
        return {name: self.get(name) for name in self.names}

    def usable(self) -> tuple[dict[str, Part], tuple[MedsegError, ...]]:
        """Return every part that can be used, by name, and why the others cannot."""
        parts: dict[str, Part] = {}
        errors: list[MedsegError] = []
        for name in self.names:
            try:
                parts[name] = self.get(name)
            except MedsegError as error:
                errors.append(error)
        return parts, tuple(errors)

    def plugins(self, *, load: bool = False) -> list[Plugin]:
        """Return who provides each name, medseg's own first, then by name.

        Args:
            load: Load what packages add, so that ``problem`` is known for each of them. Without
                it, only clashes of names are.
        """
        own_version = metadata.version("medseg")
        listed = [
            Plugin(self.group, name, "medseg", own_version)
            for name in self._shipped
        ]
        for name, points in sorted(self._entry_points().items()):
            for point in points:
                package, version = _provider_of(point)
                plugin = Plugin(self.group, name, package, version)
                listed.append(
                    replace(plugin, problem=self._problem(name, load))
                )
        return listed

    def refresh(self) -> None:
        """Forget what was looked up and loaded, after packages were installed or removed."""
        self._points = None
        self._loaded.clear()
        self._broken.clear()

    def _problem(self, name: str, load: bool) -> str:
        if name in self._shipped:
            return f"ignored: '{name}' is the name of a {self.kind} of medseg itself"
        if len(self._entry_points()[name]) > 1:
            return self._clash(name)
        if load:
            try:
                self.get(name)
            except MedsegError as error:
                return str(error)
        return ""

    def _clash(self, name: str) -> str:
        packages = [
            _provider_of(point)[0] for point in self._entry_points()[name]
        ]
        providers = " and ".join(sorted(packages))
        return f"{self.kind} '{name}' is provided by {providers}; uninstall all but one of them"

    def _load(self, name: str) -> Part:
        points = self._entry_points().get(name, [])
        if not points:
            known = ", ".join(self.names)
            raise MedsegError(
                f"there is no {self.kind} '{name}'; known are: {known}"
            )
        if len(points) > 1:
            raise MedsegError(self._clash(name))
        package, version = _provider_of(points[0])
        try:
            part: Part = points[0].load()
            if self._check is not None:
                self._check(part)
        except Exception as error:
            # Another package's code: whatever it raises must name the package, not crash medseg.
            raise MissingExtraError(
                f"{self.kind} '{name}' of the package {package} {version} cannot be used; "
                "update or uninstall that package",
                detail=f"{type(error).__name__}: {error}",
            ) from error
        return part

    def _entry_points(self) -> dict[str, list[metadata.EntryPoint]]:
        if self._points is None:
            points: dict[str, list[metadata.EntryPoint]] = {}
            for point in metadata.entry_points(group=self.group):
                points.setdefault(point.name, []).append(point)
            self._points = points
        return self._points


def _provider_of(point: metadata.EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return "an unknown package", ""
    return point.dist.name, point.dist.version
