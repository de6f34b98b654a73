"""Paths that lists of cases hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg._support.folders import find_listed
from medseg._support.json_files import describe_kind
from medseg.errors import ScanError


def parse_path(folder: Path, field: str, text: Any) -> Path:
    """Return the path that a list gives, relative to the list's folder.

    Args:
        folder: Where the list lies.
        field: What the list calls it, such as ``image``.
        text: What stands there.

    Raises:
        ScanError: If that is no path.
    """
    if not isinstance(text, str):
        raise ScanError(f"'{field}' must be a path, is {describe_kind(text)}")
    if not text.strip() or not text.isprintable():
        raise ScanError(
            f"'{field}' must be a path", detail=f"it is {text[:40]!r}"
        )
    return find_listed(folder, text)
