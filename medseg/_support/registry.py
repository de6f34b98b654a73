"""Registries: what medseg ships and what installed packages add, by name.

A package adds to medseg by an entry point, as in its ``pyproject.toml``::

    [project.entry-points."medseg.losses"]
    tversky = "my_package.losses:Tversky"

Registering is installing: a bundle may name what is registered here and nothing else, so a
stranger's bundle runs no code but that of packages someone installed on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Generic, TypeVar

from medseg.errors import MedsegError, MissingExtraError

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Plugin:
    """One name that a registry knows.

    Attributes:
        group: The entry-point group, such as ``medseg.losses``.
        name: What a bundle or an option calls it.
        package: Who provides it, ``medseg`` or an installed distribution.
        version: That package's version.
    """

    group: str
    name: str
    package: str
    version: str


class Registry(Generic[Part]):
    """Named parts of one kind: those of medseg, and those of installed packages.

    Entry points are looked up at first use and loaded when their name is asked for, so that a
    broken package harms only whoever names it.

    Args:
        group: The entry-point group, such as ``medseg.losses``.
        kind: What people call one part, as in ``loss``.
        shipped: Name → part, those of medseg itself.
        check: Raises ``TypeError`` or ``ValueError`` if a part does not keep the contract.
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

    @property
    def names(self) -> tuple[str, ...]:
        """Every name there is, medseg's own first."""
        added = sorted(name for name in _entry_points(self.group) if name not in self._shipped)
        return (*self._shipped, *added)

    def get(self, name: str) -> Part:
        """Return the part of this name.

        Raises:
            MedsegError: If there is none, or two packages provide it.
            MissingExtraError: If the package that provides it cannot be loaded, or its part does
                not keep the contract.
        """
        if name in self._shipped:
            return self._shipped[name]
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def all(self) -> dict[str, Part]:
        """Return every part by name; loads what packages add."""
        return {name: self.get(name) for name in self.names}

    def plugins(self) -> list[Plugin]:
        """Return who provides each name; loads nothing."""
        own = metadata.version("medseg")
        listed = [Plugin(self.group, name, "medseg", own) for name in self._shipped]
        for name in self.names[len(self._shipped) :]:
            points = _entry_points(self.group)[name]
            listed.extend(Plugin(self.group, name, *_provider(point)) for point in points)
        return listed

    def _load(self, name: str) -> Part:
        points = _entry_points(self.group).get(name, ())
        if not points:
            raise MedsegError(f"no {self.kind} '{name}'; there are: {', '.join(self.names)}")
        if len(points) > 1:
            packages = " and ".join(_provider(point)[0] for point in points)
            raise MedsegError(
                f"{self.kind} '{name}' is provided by {packages}; uninstall all but one of them"
            )
        package, version = _provider(points[0])
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


@cache
def _entry_points(group: str) -> dict[str, tuple[metadata.EntryPoint, ...]]:
    found: dict[str, tuple[metadata.EntryPoint, ...]] = {}
    for point in metadata.entry_points(group=group):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def _provider(point: metadata.EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return "an unknown package", ""
    return point.dist.name, point.dist.version
