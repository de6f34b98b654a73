"""Paths as a person types them: in commands that are suggested, to be copied into a shell."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from medseg._support.platform import IS_WINDOWS

_PLAIN = re.compile(r"[\w@%+=:,./-]+")
"""Needs no quotes in any shell."""

_SPECIAL = frozenset('"$`\\!')
"""Means something to POSIX's shells between double quotes, too."""


def quote_argument(path: str | Path) -> str:
    """Return a path as one argument of a command, in quotes where it needs them.

    Examples:
        >>> quote_argument("my scans/knee"), quote_argument("scans/knee")
        ('"my scans/knee"', 'scans/knee')
    """
    text = str(path)
    plain = text.replace("\\", "/") if IS_WINDOWS else text
    if _PLAIN.fullmatch(plain):
        return text
    if IS_WINDOWS or _SPECIAL.isdisjoint(text):
        return f'"{text}"'
    return shlex.quote(text)
