"""Markdown of model cards: text made inert, lists, tables, and sections that are replaced."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

_HEADING = "## "
_BEFORE = "Limits"
"""New sections stand before this one."""


def escape(text: str) -> str:
    """Return text on one line that Markdown and browsers show as it is."""
    one_line = " ".join(text.split())
    text = html.escape(one_line, quote=False)
    text = re.sub(r"([\\`*\[\]|])", r"\\\1", text)
    return re.sub(r"^([#+=~-])", r"\\\1", text)


def bullets(lines: Sequence[str]) -> str:
    """Return lines as a list."""
    return "\n".join(f"- {line}" for line in lines)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; its first row is the heading."""
    lines = []
    for row in rows:
        cells = [escape(cell) for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    columns = len(rows[0])
    lines.insert(1, "|" + " --- |" * columns)
    return "\n".join(lines)


def replace_sections(card: str, sections: Mapping[str, str]) -> str:
    """Return a card with the text of some sections replaced.

    Args:
        card: Markdown whose sections begin with ``## ``.
        sections: Heading → text. One that the card does not have stands before its limits, or at
            its end.
    """
    parts = re.split(r"^(?=## )", card, flags=re.MULTILINE)
    headings = [
        part.partition("\n")[0].removeprefix(_HEADING) for part in parts
    ]
    for heading, text in sections.items():
        part = f"{_HEADING}{heading}\n\n{text}\n\n"
        if heading in headings[1:]:
            parts[headings.index(heading, 1)] = part
            continue
        place = len(parts)
        if _BEFORE in headings[1:]:
            place = headings.index(_BEFORE, 1)
        elif not parts[-1].endswith("\n\n"):
            parts[-1] = parts[-1].rstrip("\n") + "\n\n"
        parts.insert(place, part)
        headings.insert(place, heading)
    return "".join(parts).rstrip("\n") + "\n"
