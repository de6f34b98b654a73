"""What a console can show: where its encoding lacks a sign, a plainer one takes its place."""

from __future__ import annotations

import codecs
import sys
import unicodedata
from typing import TextIO

_ERRORS = "medseg-plain"

_PLAIN = {
    "→": "->",
    "←": "<-",
    "×": "x",
    "…": "...",
    "≥": ">=",
    "≤": "<=",
    "≈": "~",
    "±": "+-",
    "–": "-",
    "—": "-",
    "−": "-",
    "·": "-",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "µ": "u",
    "ß": "ss",
}


def show_all_signs() -> None:
    """Let standard output and standard error take every text, whatever their encoding.

    On Windows that is often a code page, such as cp1252, when output goes to a file or a pipe.
    Without this, one sign that it lacks would end a command.
    """
    codecs.register_error(_ERRORS, _put_plainly)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_ERRORS)


def shows_all_signs(stream: TextIO) -> bool:
    """Tell whether a stream's encoding has every sign."""
    encoding = stream.encoding or ""
    return encoding.lower().startswith("utf")


def make_plain(text: str) -> str:
    """Return what stands in ASCII for a text.

    Examples:
        >>> make_plain("Müller → 2 × 3 肝")
        'Muller -> 2 x 3 ?'
    """
    return "".join(map(_make_sign_plain, text))


def _make_sign_plain(sign: str) -> str:
    if sign in _PLAIN:
        return _PLAIN[sign]
    parts = unicodedata.normalize("NFKD", sign)
    letters = parts.encode("ascii", "ignore").decode()
    return letters or "?"


def _put_plainly(error: UnicodeError) -> tuple[str, int]:
    """Answer for a codec what stands for the signs that it lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return make_plain(lacking), error.end
