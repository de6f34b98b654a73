"""The choices of a bundle, each with its reason."""

from __future__ import annotations

import json
from typing import Any

from medseg.bundle.spec import BundleSpec


def list_choices(spec: BundleSpec) -> list[tuple[str, str, str]]:
    """Return field, value and reason of every choice that a bundle's notes explain."""
    content = spec.model_dump(mode="json", by_alias=True)
    return [
        (field, _format_value(content, field), why)
        for field, why in spec.notes.items()
    ]


def _format_value(content: Any, field: str) -> str:
    """Return a field's value, as far as the path leads; nothing where it names no field."""
    section, *_ = field.split(".")
    if section not in content:
        return ""
    value = content
    for key in field.split("."):
        value = _step_into(value, key)
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False)
    )


def _step_into(value: Any, key: str) -> Any:
    """Return an item of a mapping or a list; the value itself where it has no such item."""
    if isinstance(value, dict):
        return value.get(key, value)
    if isinstance(value, list) and key.isdigit() and int(key) < len(value):
        return value[int(key)]
    return value
