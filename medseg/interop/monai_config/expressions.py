"""The few ``$`` expressions of MONAI's configs whose meaning follows from their text alone.

MONAI evaluates such text as Python. Here it is parsed, never evaluated: literals, references to
other entries, joined texts and paths, a choice by a switch of the config, a length, names of number
types, and a network that is moved to a device. Whatever else it may be is unknown.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

REFERENCE = r"[@%]([A-Za-z_]\w*(?:(?:::|#)\w+)*)"
"""``@network_def`` or ``@train::inferer``; ``%`` copies the text, which is the same for data."""

_WHOLE = re.compile(REFERENCE)
_MOVED = re.compile(
    r"\s*@([A-Za-z_]\w*)\.to\(\s*(?:@\w+|device=@\w+|'[a-z0-9:]+')\s*\)\s*"
)
"""``$@network_def.to(@device)``: the network itself, for us."""
_PLACE = "entry_of_config_"
_MOST_CHARACTERS = 1000
_MOST_TEXT = 4000
_TYPE = re.compile(
    r"(?:torch|np|numpy)\.(float16|float32|float64|float|half|double|bfloat16|long|int|bool"
    r"|u?int(?:8|16|32|64))"
)

LookUp = Callable[[str], Any]
"""Returns the resolved entry of an id such as ``train::inferer``."""


@dataclass(frozen=True, slots=True)
class NumberType:
    """A type of numbers, by the name that torch and NumPy have for it."""

    name: str


class UnknownError(Exception):
    """An expression's meaning does not follow from its text."""


def parse_reference(text: str) -> str | None:
    """Return the id that a text is a reference to, with ``::``; ``None`` for other texts."""
    match = _WHOLE.fullmatch(text.strip())
    return None if match is None else match.group(1).replace("#", "::")


def find_moved_network(text: str) -> str | None:
    """Return the id of the entry that an expression moves to a device; ``None`` for others."""
    match = _MOVED.fullmatch(text.removeprefix("$"))
    return None if match is None else match.group(1)


def compute(text: str, look_up: LookUp) -> Any:
    """Return what an expression of the known kinds means.

    Args:
        text: Without the ``$``.
        look_up: Resolves references.

    Raises:
        UnknownError: If it is of no known kind.
    """
    ids: dict[str, str] = {}

    def name_entry(match: re.Match[str]) -> str:
        name = f"{_PLACE}{len(ids)}"
        ids[name] = match.group(1).replace("#", "::")
        return name

    named = re.sub(REFERENCE, name_entry, text.strip())
    tree = parse_expression(named)
    entries = {name: look_up(id_) for name, id_ in ids.items()}
    return _compute(tree, entries)


def parse_expression(text: str) -> ast.expr:
    """Return the syntax of an expression.

    Raises:
        UnknownError: If it is none, or is longer than any that is known.
    """
    if len(text) > _MOST_CHARACTERS:
        raise UnknownError
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnknownError from error


def _compute(node: ast.expr, entries: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value) if _is_plain(value):
            return value
        case ast.Name(id=name) if name in entries:
            return entries[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_compute(item, entries) for item in items]
        case ast.IfExp(test=test, body=chosen, orelse=other):
            is_true = _require(_compute(test, entries), bool)
            return _compute(chosen if is_true else other, entries)
        case ast.UnaryOp(op=operator, operand=operand):
            return _apply(operator, _compute(operand, entries))
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            parts = (_compute(left, entries), _compute(right, entries))
            return _join(*parts)
        case ast.Call(func=function, args=arguments, keywords=[]):
            values = [_compute(argument, entries) for argument in arguments]
            return _call(ast.unparse(function), values)
        case ast.Attribute():
            return _find_type(ast.unparse(node))
    raise UnknownError


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return _PLACE not in value
    return value is None or isinstance(value, bool | int | float)


def _require(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise UnknownError
    return value


def _apply(operator: ast.unaryop, value: Any) -> Any:
    match operator:
        case ast.Not():
            return not _require(value, bool)
        case ast.USub() if isinstance(value, int | float):
            return -value
    raise UnknownError


def _join(*parts: Any) -> str:
    joined = "".join(_require(part, str) for part in parts)
    if len(joined) > _MOST_TEXT:
        raise UnknownError
    return joined


def _call(function: str, values: list[Any]) -> Any:
    if function == "len" and len(values) == 1:
        return len(_require(values[0], list))
    if function == "os.path.join" and values:
        parts: Iterator[str] = (_require(value, str) for value in values)
        return posixpath.join(*parts)
    raise UnknownError


def _find_type(name: str) -> NumberType:
    match = _TYPE.fullmatch(name)
    if match is None:
        raise UnknownError
    return NumberType(match.group(1))
