"""A config of a MONAI Bundle with its references resolved, and its components as data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.interop.monai_config.expressions import (
    UnknownError,
    compute,
    find_moved_network,
    parse_reference,
)

_MOST_VALUES = 50_000
_MOST_DEPTH = 60
_SHOWN = 160
_TARGET = "_target_"
DISABLED = "_disabled_"
"""The field of a component that says whether it is left out."""
_NOTES = ("_target_", DISABLED, "_requires_", "_desc_")
"""Fields of a component that are no arguments."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """An expression whose meaning does not follow from its text.

    Attributes:
        text: As the config has it.
    """

    text: str

    def __str__(self) -> str:
        return self.text


class Config:
    """A config's entries.

    Args:
        content: As ``read_config`` returns it.
        file: Where it stands, for errors.
    """

    def __init__(self, content: Mapping[str, Any], file: Path) -> None:
        self.file = file
        self._content = content
        self._open: list[str] = []
        self._values = 0

    def __contains__(self, entry: str) -> bool:
        return entry in self._content

    def get(self, entry: str) -> Any:
        """Return an entry with its references resolved; ``None`` where there is none.

        Args:
            entry: Its id, such as ``preprocessing`` or ``train::inferer``.

        Raises:
            MedsegError: If references run in a circle, or it has too many values.
        """
        if entry.split("::")[0] not in self._content:
            return None
        return self._look_up(entry)

    def list_texts(self, entry: str) -> Iterator[tuple[str, str]]:
        """Yield the path and text of each expression that an entry lists, as it stands there.

        Of a component it is the name of what is called.
        """
        listed = self._content.get(entry)
        if not isinstance(listed, list):
            return
        for position, item in enumerate(listed):
            text = item
            if isinstance(item, dict) and not self._is_disabled(item):
                text = item.get(_TARGET)
            if isinstance(text, str):
                yield f"{entry}::{position}", text

    def find_reference(self, entry: str) -> str | None:
        """Return the id that an entry leads to by mere references; ``None`` if it is none."""
        found = None
        for _ in range(_MOST_DEPTH):
            value: Any = self._content
            for key in entry.split("::"):
                value = value.get(key) if isinstance(value, dict) else None
            if not isinstance(value, str):
                break
            following = parse_reference(value) or find_moved_network(value)
            if following is None:
                break
            found = entry = following
        return found

    def refuse(self, path: str, what: str) -> MedsegError:
        """Return the error about something that is not known."""
        return MedsegError(
            "its configuration asks for something that medseg does not know and does not run, so "
            "its label maps could not be repeated",
            source=self.file,
            detail=f"{path}: {what}",
        )

    def _look_up(self, entry: str) -> Any:
        if entry in self._open:
            raise MedsegError(
                "references in its configuration run in a circle",
                source=self.file,
                detail=" → ".join([*self._open[-4:], entry])[:_SHOWN],
            )
        # Open from here on: the way to an entry may lead through references.
        self._open.append(entry)
        value: Any = self._content
        for key in entry.split("::"):
            value = self._enter(value, key, entry)
        resolved = self._resolve(value, 0)
        self._open.pop()
        return resolved

    def _enter(self, value: Any, key: str, entry: str) -> Any:
        if isinstance(value, str):
            # An entry of what another entry refers to.
            value = self._resolve(value, 0)
        if isinstance(value, dict) and key in value:
            return value[key]
        is_position = key.isdecimal() and len(key) < len(str(_MOST_VALUES))
        if isinstance(value, list) and is_position and int(key) < len(value):
            return value[int(key)]
        raise MedsegError(
            "its configuration refers to an entry that is not there",
            source=self.file,
            detail=entry[:_SHOWN],
        )

    def _resolve(self, value: Any, depth: int) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES or depth + len(self._open) > _MOST_DEPTH:
            raise MedsegError(
                "its configuration is nested too deeply, or has too many values",
                source=self.file,
            )
        if isinstance(value, dict):
            return {
                key: self._resolve(item, depth + 1)
                for key, item in value.items()
                if not self._is_disabled(item)
            }
        if isinstance(value, list):
            kept = [item for item in value if not self._is_disabled(item)]
            return [self._resolve(item, depth + 1) for item in kept]
        return self._resolve_text(value) if isinstance(value, str) else value

    def _is_disabled(self, value: Any) -> bool:
        """Tell whether a component is left out; not where that is an unknown expression."""
        if not isinstance(value, dict):
            return False
        stated = value.get(DISABLED)
        if isinstance(stated, str):
            stated = self._resolve_text(stated)
        if isinstance(stated, str):
            return stated.strip().lower() == "true"
        return bool(stated) and not isinstance(stated, Unknown)

    def _resolve_text(self, text: str) -> Any:
        reference = parse_reference(text)
        if reference is not None:
            return self._look_up(reference)
        if not text.startswith("$"):
            return text
        moved = find_moved_network(text)
        if moved is not None:
            return self._look_up(moved)
        try:
            return compute(text[1:], self._look_up)
        except UnknownError:
            return Unknown(text)


@dataclass(slots=True)
class Component:
    """An object that a config asks for: a class, and its arguments.

    Attributes:
        name: The class without its module.
        arguments: Resolved, by name.
        path: Where it stands in the config.
        config: The config.
    """

    name: str
    arguments: dict[str, Any]
    path: str
    config: Config
    _looked_at: set[str] = field(default_factory=set)

    def take(self, name: str, default: Any = None) -> Any:
        """Return an argument, and note that it was looked at.

        Raises:
            MedsegError: If it is an expression that is not known.
        """
        self._looked_at.add(name)
        value = self.arguments.get(name, default)
        unknown = _find_unknown(value)
        if unknown is not None:
            raise self.refuse(f"the expression {_shorten(unknown)}", name)
        return value

    def take_raw(self, name: str, default: Any = None) -> Any:
        """Return an argument whose parts will be looked at one by one."""
        self._looked_at.add(name)
        return self.arguments.get(name, default)

    def take_expression(self, name: str) -> str:
        """Return an argument that is an expression, as text; empty if it is none."""
        self._looked_at.add(name)
        value = self.arguments.get(name)
        return value.text if isinstance(value, Unknown) else ""

    def require(self, **allowed: Any) -> None:
        """Refuse arguments that have another value than the one medseg can do."""
        for name, value in allowed.items():
            given = self.take(name, value)
            if given != value:
                raise self.refuse(f"{_shorten(given)}; known: {value}", name)

    def finish(self, harmless: Collection[str] = ()) -> None:
        """Refuse arguments that nobody looked at, but those that change no label."""
        known = {*self._looked_at, *harmless}
        for name, value in self.arguments.items():
            if name not in known:
                raise self.refuse(f"{_shorten(value)}", name)

    def refuse(self, what: str, argument: str = "") -> MedsegError:
        """Return the error about this component, or one of its arguments."""
        path = f"{self.path}::{argument}" if argument else self.path
        return self.config.refuse(path, f"{self.name}: {what}")


def as_component(
    value: Any, path: str, config: Config, module: str
) -> Component:
    """Return what an entry asks for.

    Args:
        value: Resolved.
        path: Where it stands.
        config: The config.
        module: The part of MONAI whose classes are meant, such as ``monai.transforms``. Classes of
            other modules are not known, whatever their names are.

    Raises:
        MedsegError: If it is no component of MONAI's, or is not called at once.
    """
    if not (isinstance(value, dict) and isinstance(value.get(_TARGET), str)):
        raise config.refuse(path, f"{_shorten(value)} names no class")
    target: str = value[_TARGET]
    name = target.rpartition(".")[2]
    is_monais = target == name or target.startswith(f"{module}.")
    if not (is_monais and name.isidentifier()):
        raise config.refuse(
            f"{path}::{_TARGET}",
            f"{_shorten(target)} is no class of {module}",
        )
    arguments = {key: item for key, item in value.items() if key not in _NOTES}
    mode = arguments.pop("_mode_", "default")
    if mode != "default":
        raise config.refuse(f"{path}::_mode_", _shorten(mode))
    return Component(name, arguments, path, config)


def _find_unknown(value: Any) -> Unknown | None:
    """Return an unknown expression in a value, if there is one."""
    if isinstance(value, Unknown):
        return value
    items: Collection[Any] = ()
    if isinstance(value, dict):
        items = value.values()
    elif isinstance(value, list):
        items = value
    found = (_find_unknown(item) for item in items)
    return next((unknown for unknown in found if unknown is not None), None)


def _shorten(value: Any) -> str:
    text = " ".join(str(value).split())
    shown = "".join(filter(str.isprintable, text[:_SHOWN]))
    return shown + ("…" if len(text) > _SHOWN else "")
