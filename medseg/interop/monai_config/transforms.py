"""Chains of transforms in a MONAI config: their components in order, by MONAI's plain names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from medseg.interop.monai_config.config import (
    DISABLED,
    Component,
    Config,
    Unknown,
    as_component,
)
from medseg.interop.monai_config.expressions import (
    NumberType,
    UnknownError,
    parse_expression,
)

MODULE = "monai.transforms"

_SUFFIXES = ("Dict", "D", "d")
_CHAIN = "Compose"
_MOST_NUMBER = 1e15
_MOST_CHANNELS = 1000
FLOATS = ("float32", "float")
"""Names of the number type that medseg computes in."""


def list_transforms(value: Any, path: str, config: Config) -> list[Component]:
    """Return the transforms of a chain, each named as MONAI names its version for arrays.

    Args:
        value: Of the config, resolved: a ``Compose``, one transform, or a list of them.
        path: Where it stands.
        config: The config.

    Raises:
        MedsegError: If one is no transform of MONAI's.
    """
    return list(_list_transforms(value, path, config))


def _list_transforms(
    value: Any, path: str, config: Config
) -> Iterator[Component]:
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield from _list_transforms(item, f"{path}::{position}", config)
        return
    _refuse_unknown_switch(value, path, config)
    component = as_component(value, path, config, MODULE)
    if component.name == _CHAIN:
        component.require(lazy=False, overrides=None)
        inner = component.take_raw("transforms", [])
        component.finish(
            ("map_items", "unpack_items", "log_stats", "overrides")
        )
        yield from _list_transforms(inner, f"{path}::transforms", config)
        return
    component.name = _name_plainly(component)
    component.require(lazy=False)
    yield component


def _refuse_unknown_switch(value: Any, path: str, config: Config) -> None:
    """Refuse a transform of which it does not follow whether it is left out."""
    switch = value.get(DISABLED) if isinstance(value, dict) else None
    if isinstance(switch, Unknown):
        raise config.refuse(f"{path}::{DISABLED}", switch.text[:100])


def check_key(component: Component, key: str) -> None:
    """Refuse a transform that works on something else than one key."""
    keys = component.take("keys")
    if keys not in (key, [key]):
        raise component.refuse(
            f"works on {str(keys)[:60]} instead of '{key}' alone", "keys"
        )
    component.take("allow_missing_keys")


def take_one(component: Component, name: str, default: Any) -> Any:
    """Return an argument that may be written as a list of one, for one key."""
    value = component.take(name, default)
    is_list_of_one = isinstance(value, list) and len(value) == 1
    return value[0] if is_list_of_one else value


def check_float(component: Component, name: str) -> None:
    """Refuse another number type than single precision, where one is named."""
    dtype = component.take(name)
    name_of_type = dtype.name if isinstance(dtype, NumberType) else dtype
    if name_of_type is not None and name_of_type not in FLOATS:
        raise component.refuse(f"{str(name_of_type)[:60]}", name)


def take_number(
    component: Component, name: str, default: float | None = None
) -> float:
    """Return an argument that is a number.

    Raises:
        MedsegError: If it is not.
    """
    value = component.take(name, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) < _MOST_NUMBER:
        raise component.refuse(f"{str(value)[:60]} is no number", name)
    return float(value)


def parse_function(expression: str) -> tuple[str, ast.expr] | None:
    """Return name of the argument and body of ``$lambda x: …``; ``None`` for other expressions."""
    try:
        tree = parse_expression(expression.removeprefix("$"))
    except UnknownError:
        return None
    match tree:
        case ast.Lambda(args=ast.arguments(args=[ast.arg(arg=name)])):
            return name, tree.body
    return None


def find_selected(component: Component) -> tuple[int, ...] | None:
    """Return which channels ``$lambda x: x[0:2]`` selects; ``None`` for other transforms."""
    if component.name != "Lambda":
        return None
    parsed = parse_function(component.take_expression("func"))
    match parsed:
        case (
            name,
            ast.Subscript(value=ast.Name(id=image), slice=index),
        ) if image == name:
            return _find_positions(index)
    return None


def _find_positions(index: ast.expr) -> tuple[int, ...] | None:
    """Return the positions along the first axis that an index stands for."""
    match index:
        case ast.Tuple(elts=[first, *others]) if all(map(_is_whole, others)):
            return _find_positions(first)
        case ast.List(elts=items):
            positions = tuple(map(_read_position, items))
        case ast.Slice(lower=lower, upper=ast.expr() as upper, step=None):
            start = 0 if lower is None else _read_position(lower)
            stop = _read_position(upper)
            if start is None or stop is None:
                return None
            positions = tuple(range(start, stop))
        case _:
            positions = (_read_position(index),)
    known = tuple(each for each in positions if each is not None)
    return known if known and len(known) == len(positions) else None


def _read_position(node: ast.expr) -> int | None:
    """Return a number of a channel; ``None`` for all else."""
    match node:
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int() as position):
            return position if 0 <= position <= _MOST_CHANNELS else None
    return None


def _is_whole(index: ast.expr) -> bool:
    """Tell whether an index takes all along its axis: ``:`` or ``...``."""
    match index:
        case ast.Slice(lower=None, upper=None, step=None):
            return True
        case ast.Constant(value=value):
            return value is Ellipsis
    return False


def _name_plainly(component: Component) -> str:
    """Return a transform's name without what marks its version for dictionaries."""
    for suffix in _SUFFIXES:
        if component.name.endswith(suffix):
            return component.name.removesuffix(suffix)
    raise component.refuse("is no transform of a case with keys")
