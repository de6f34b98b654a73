"""A case's quality in few words: where viewers have one line for it, and no page.

3D Slicer shows a scan's name in its views, OHIF a series' description in its list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.quality.estimates import Level

LONGEST_DESCRIPTION = 64
"""Characters of a series' description (value representation LO)."""

_FEWEST_NAME = 8


def describe_quality(quality: Mapping[str, Any] | None) -> str:
    """Return what people are shown of a quality, in one line; empty if there is none.

    Args:
        quality: As ``summarise_quality`` returns it.

    Examples:
        >>> describe_quality({"shown": "0.71", "expected": 0.71, "lower": 0.5, "review": True})
        'expected Dice 0.71, at least 0.50, review'
        >>> describe_quality({"shown": "not calibrated", "warnings": ["a", "b"]})
        'not calibrated, 2 warnings'
    """
    if not quality:
        return ""
    parts = [str(quality.get("shown", ""))]
    if quality.get("expected") is not None:
        parts = [f"expected Dice {parts[0]}", describe_bound(quality)]
    if quality.get("review"):
        parts.append("review")
    count = len(quality.get("warnings") or ())
    if count:
        parts.append(f"{count} warning{'' if count == 1 else 's'}")
    return ", ".join(filter(None, parts))


def describe_bound(quality: Mapping[str, Any]) -> str:
    """Return a quality's lower bound in words; empty if it has none."""
    lower = quality.get("lower")
    return "" if lower is None else f"at least {lower:.2f}"


def choose_level(quality: Mapping[str, Any] | None) -> Level:
    """Return which colour a quality has, as in the report of a batch."""
    if not quality:
        return "unknown"
    if quality.get("review"):
        return "review"
    return "unknown" if quality.get("expected") is None else "good"


def describe_proposal(
    bundle: str, version: str, quality: Mapping[str, Any] | None
) -> str:
    """Return what viewers list a stored proposal as: of what bundle and version, and how good.

    Examples:
        >>> describe_proposal("liver", "0002", {"shown": "0.71", "expected": 0.71})
        'Proposal: liver v0002, expected Dice 0.71'
    """
    text = describe_quality(quality)
    end = f" v{version}, {text}" if text else f" v{version}"
    start = "Proposal: "
    free = LONGEST_DESCRIPTION - len(start) - len(end)
    # A long name gives way: how good the proposal is, and of what version, must be read.
    name = bundle[: max(free, _FEWEST_NAME)]
    return f"{start}{name}{end}"[:LONGEST_DESCRIPTION]
