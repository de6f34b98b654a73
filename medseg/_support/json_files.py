"""JSON from files of others: strict, and with errors of whoever reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from medseg.errors import MedsegError


def parse_json(text: str) -> Any:
    """Parse JSON, strictly: no field twice in one object, no NaN and no Infinity.

    Raises:
        ValueError: If it is not such JSON.
        RecursionError: If it is nested too deeply.
    """
    return json.loads(
        text, object_pairs_hook=_refuse_repeats, parse_constant=_refuse_constant
    )


def parse_json_object(
    text: str, file: Path, error: type[MedsegError], *, is_strict: bool = True
) -> dict[str, Any]:
    """Parse the text of a file that holds one JSON object.

    Args:
        text: The text.
        file: Where it stands, for errors.
        error: Of which kind they are.
        is_strict: Whether a field that stands twice is refused, and numbers that are none; lists of
            data sets with such are in use.

    Raises:
        MedsegError: If it is no JSON object; of the kind ``error``.
    """
    parse = parse_json if is_strict else json.loads
    return parse_mapping(text, file, error, "JSON", parse)


def parse_mapping(
    text: str,
    file: Path,
    error: type[MedsegError],
    language: Literal["JSON", "YAML"],
    parse: Callable[[str], Any],
) -> dict[str, Any]:
    """Parse the text of a file that holds one mapping.

    Args:
        text: The text.
        file: Where it stands, for errors.
        error: Of which kind they are.
        language: What it is written in.
        parse: Parses it; raises ``ValueError`` where it is not that, and ``RecursionError``.

    Raises:
        MedsegError: If it is no mapping; of the kind ``error``.
    """
    try:
        content = parse(text)
    except RecursionError as cause:
        raise error("is nested too deeply", source=file) from cause
    except ValueError as cause:
        raise error(
            f"is not valid {language}", source=file, detail=str(cause)
        ) from cause
    if isinstance(content, dict):
        return content
    wanted = _MAPPINGS[language]
    kind = describe_kind(content)
    raise error(f"must hold {wanted}, holds {kind}", source=file)


_MAPPINGS = {"JSON": "a JSON object {…}", "YAML": "a YAML mapping"}


def describe_kind(value: Any) -> str:
    """Say what kind of JSON value this is: ``a list``."""
    kinds = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        type(None): "nothing",
    }
    return kinds.get(type(value), "a number")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"the field '{name}' stands twice in one object")
        seen.add(name)
    return dict(pairs)
