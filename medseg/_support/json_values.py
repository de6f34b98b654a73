"""What JSON can hold."""

from __future__ import annotations

import math
from typing import Any


def nan_to_none(value: Any) -> Any:
    """Return a value with ``None`` for NaN and infinity, which JSON does not know.

    Args:
        value: Plain values, in mappings and lists of any depth; tuples become lists.

    Examples:
        >>> nan_to_none({"dice": [0.9, math.nan]})
        {'dice': [0.9, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_none(item) for item in value]
    return value
