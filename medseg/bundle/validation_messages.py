"""What pydantic finds in a bundle → faults that a person can mend."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from medseg.bundle.spec import BundleSpec, Contradiction, ContradictionError
from medseg.errors import Fault

_KINDS = {"unet", "monai", "zscore", "window", "minmax", "one", "list"}
"""Steps of pydantic's paths that say which kind of value was tried."""


def explain_faults(error: ValidationError, content: Mapping[str, Any]) -> list[Fault]:
    """Say what is wrong with a part of a bundle.

    Args:
        error: What pydantic found.
        content: What it looked at, lists as tuples.

    Returns:
        A fault for each finding, with its place in the JSON.
    """
    faults = [Fault(where, what) for _, where, what in _contradictions(error)]
    for item in error.errors(include_url=False):
        if isinstance(item.get("ctx", {}).get("error"), ContradictionError):
            continue
        faults.append(Fault(_json_path(item["loc"], content) or "bundle", _say(item)))
    # Pydantic calls a list too short when its only item is bad; the item's fault says it all.
    return [
        fault
        for fault in faults
        if "List should have" not in fault.what
        or not any(other.where.startswith(f"{fault.where}.") for other in faults)
    ]


def _json_path(steps: Sequence[str | int], content: Any) -> str:
    """Return where in the JSON a fault is; steps that are not in the JSON are left out."""
    path = []
    for step in steps:
        if _leads_on(content, step):
            content = content[step]
        elif step in _KINDS:
            continue
        path.append(str(step))
    return ".".join(path)


def _leads_on(content: Any, step: str | int) -> bool:
    if isinstance(content, tuple):
        return isinstance(step, int) and step < len(content)
    return isinstance(content, Mapping) and step in content


def _say(item: Mapping[str, Any]) -> str:
    came = item.get("input")
    match item["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is no field known here; check its spelling and place"
        case "value_error":
            return str(item["ctx"]["error"])
        case "tuple_type":
            message = "should be a list"
        case "model_type" | "model_attributes_type" | "dict_type":
            message = "should be an object"
        case _:
            message = str(item["msg"]).removeprefix("Input ").replace("Tuple should", "List should")
    return f"{message}, got {_short(came)}"


def _short(came: Any) -> str:
    text = json.dumps(came, default=str)
    return text if len(text) <= 80 else text[:77] + "…"


def _contradictions(error: ValidationError) -> list[Contradiction]:
    return [
        found
        for item in error.errors(include_url=False)
        if isinstance(cause := item.get("ctx", {}).get("error"), ContradictionError)
        for found in cause.found
    ]


def find_hidden_contradictions(error: ValidationError, content: Mapping[str, Any]) -> list[Fault]:
    """Find contradictions between a bundle's sections that have no fault of their own.

    Pydantic compares sections only once each is right by itself, which would tell a person of
    a wrong patch size only after an unrelated typing error is mended.
    """
    if any(_contradictions(error)):
        return []
    bad = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    sound = {
        "name": "sound",
        "channels": ({"name": "sound"},),
        "labels": ({"index": 1, "name": "sound"},),
        "training": {"patch": (16, 16, 16)},
    }
    known = {field.alias or name for name, field in BundleSpec.model_fields.items()}
    rest = {key: value for key, value in content.items() if key in known - bad}
    try:
        BundleSpec.model_validate(sound | rest, strict=True)
    except ValidationError as second:
        return [
            Fault(where, what)
            for about, where, what in _contradictions(second)
            if not bad.intersection(about)
        ]
    return []
