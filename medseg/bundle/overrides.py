"""Overrides of a bundle's fields for one call: ``training.steps=200``."""

from __future__ import annotations

import json
import re
from typing import Any

from medseg._support.json_files import parse_json
from medseg.errors import BundleError


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set one field of a bundle's JSON.

    Args:
        content: The JSON object; changed in place. Sections that are absent are made.
        override: ``section.field=value``. The value is JSON; what is not JSON is text. Items of a
            list go by their position: ``labels.0.name=liver``.

    Raises:
        BundleError: If it is not an assignment, or its path leads nowhere.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise BundleError(
            f"'{override}' is not an override; write section.field=value, as in training.steps=200"
        )
    section: Any = content
    for key in keys[:-1]:
        section = _enter(section, key, override)
    last = keys[-1]
    if isinstance(section, list):
        section[_find_position(section, last, override)] = _parse_value(text)
    else:
        section[last] = _parse_value(text)


def _enter(section: Any, key: str, override: str) -> Any:
    if isinstance(section, list):
        inner = section[_find_position(section, key, override)]
    else:
        inner = section.setdefault(key, {})
    if not isinstance(inner, dict | list):
        raise BundleError(
            f"'{override}': {key} is not a section, it holds {json.dumps(inner)}"
        )
    return inner


def _find_position(items: list[Any], position: str, override: str) -> int:
    is_number = re.fullmatch("[0-9]{1,9}", position) is not None
    if is_number and int(position) < len(items):
        return int(position)
    allowed = f"0 to {len(items) - 1} are" if items else "give the whole list"
    raise BundleError(
        f"'{override}': '{position}' is not a position in a list of {len(items)}; {allowed}"
    )


def _parse_value(text: str) -> Any:
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        return text  # names and paths need no quotes on a command line
