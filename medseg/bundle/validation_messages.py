"""What pydantic finds in a bundle, put so that a person can mend it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from medseg.bundle.spec import BundleSpec, Contradiction, ContradictionError
from medseg.errors import Fault

_KINDS = {
    "unet",
    "staged",
    "named",
    "zscore",
    "window",
    "minmax",
    "one",
    "list",
}
"""Steps of pydantic's paths that say which kind of value was tried."""

_LONGEST_VALUE = 80
_LONGEST_PLACE = 100


def explain_faults(
    error: ValidationError, content: Mapping[str, Any]
) -> list[Fault]:
    """Say what is wrong with a part of a bundle.

    Args:
        error: What pydantic found.
        content: What it looked at, lists as tuples.

    Returns:
        A fault for each finding, with its place in the JSON.
    """
    faults = []
    for _, where, what in _list_contradictions(error):
        faults.append(Fault(where, what))
    for item in error.errors(include_url=False):
        if _contradiction_error(item) is not None:
            continue
        where = _json_path(item["loc"], content) or "bundle"
        what = _explain(item)
        faults.append(Fault(where, what))
    return [fault for fault in faults if not _follows_from_items(fault, faults)]


def find_hidden_contradictions(
    error: ValidationError, content: Mapping[str, Any]
) -> list[Fault]:
    """Find contradictions between a bundle's sections that have no fault of their own.

    Pydantic compares sections only once each is right by itself, which would tell a person of
    a wrong patch size only after an unrelated typing error is mended.
    """
    if _list_contradictions(error):
        return []
    faulty = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    rest = _without_sections(content, faulty)
    try:
        BundleSpec.model_validate(rest, strict=True)
    except ValidationError as second:
        hidden = []
        for sections, where, what in _list_contradictions(second):
            if faulty.isdisjoint(sections):
                hidden.append(Fault(where, what))
        return hidden
    return []


def _without_sections(
    content: Mapping[str, Any], faulty: set[str]
) -> dict[str, Any]:
    """Return a bundle with its faulty and unknown sections left out, or valid where needed."""
    valid: dict[str, Any] = {
        "name": "valid",
        "channels": ({"name": "valid"},),
        "labels": ({"index": 1, "name": "valid"},),
        "training": {"patch": (16, 16, 16)},
    }
    for name, field in BundleSpec.model_fields.items():
        key = field.alias or name
        if key in content and key not in faulty:
            valid[key] = content[key]
    return valid


def _follows_from_items(fault: Fault, faults: Sequence[Fault]) -> bool:
    """Tell whether a list is called too short only because its items are faulty."""
    if "List should have" not in fault.what:
        return False
    return any(other.where.startswith(f"{fault.where}.") for other in faults)


def _json_path(steps: Sequence[str | int], content: Any) -> str:
    """Return where in the JSON a fault is; steps that are not in the JSON are left out."""
    path = []
    for step in steps:
        if _has_step(content, step):
            content = content[step]
        elif step in _KINDS:
            continue
        path.append(str(step))
    return ".".join(path)


def _has_step(content: Any, step: str | int) -> bool:
    if isinstance(content, tuple):
        return isinstance(step, int) and step < len(content)
    return isinstance(content, Mapping) and step in content


def _explain(item: Mapping[str, Any]) -> str:
    match item["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is not a known field; check its spelling and its section"
        case "value_error":
            return str(item["ctx"]["error"])
        case "tuple_type":
            message = "should be a list"
        case "model_type" | "model_attributes_type" | "dict_type":
            message = "should be an object"
        case _:
            message = (
                str(item["msg"])
                .removeprefix("Input ")
                .replace("Tuple should", "List should")
            )
    return f"{message}, got {_shorten(item.get('input'))}"


def _shorten(value: Any) -> str:
    text = json.dumps(value, default=str)
    if len(text) <= _LONGEST_VALUE:
        return text
    return text[: _LONGEST_VALUE - 3] + "…"


def _list_contradictions(error: ValidationError) -> list[Contradiction]:
    contradictions: list[Contradiction] = []
    for item in error.errors(include_url=False):
        cause = _contradiction_error(item)
        if cause is not None:
            contradictions.extend(cause.contradictions)
    return contradictions


def _contradiction_error(item: Mapping[str, Any]) -> ContradictionError | None:
    cause = item.get("ctx", {}).get("error")
    return cause if isinstance(cause, ContradictionError) else None


def find_first_fault(error: ValidationError) -> tuple[str, str]:
    """Return where the first fault of a file of other software lies, and what it is."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return where[:_LONGEST_PLACE], first["msg"]
