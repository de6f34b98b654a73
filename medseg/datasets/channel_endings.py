"""Which ending of a file's name is that of a channel: ``BraTS20_001`` and ``t1ce``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from medseg.layouts.channel_names import is_same_channel
from medseg.layouts.label_names import normalize_label
from medseg.layouts.tree_names import split_stem
from medseg.names import fold_name

SEPARATORS = "_-. "
"""What may stand between the name of a case and that of a channel."""

_CUTS = re.compile(r"[_\-. ]+")
_MOST_KEPT = 4096
_MORE_WORDS = 3
"""Words such as ``weighted`` and ``image`` that a name may have besides."""


def strip_channel(stem: str, wanted: Sequence[str]) -> str:
    """Return a name without the channel's name that it ends in.

    Examples:
        >>> strip_channel("site1_BraTS20_001_t1ce", ["FLAIR", "T1c"])
        'site1_BraTS20_001'
    """
    split = split_channel_name(stem, wanted)
    return stem if split is None else split[0] or stem


def split_channel_name(
    stem: str, wanted: Sequence[str]
) -> tuple[str, str] | None:
    """Split a name into a case's and a channel's.

    The longest ending that is equal to a channel's name counts, else the longest that is another
    word for one.
    """
    named = []
    known = set(_split_words(" ".join(wanted)))
    for start in _list_starts(stem, _count_words(wanted)):
        role = _strip_words(stem[start:])
        # The number of a case is no word for a channel; most names are known by that.
        numbers = {word for word in _split_words(role) if word.isdigit()}
        if numbers <= known and names_channel(role, tuple(wanted)):
            is_equal = _is_one_of(role, wanted)
            named.append((not is_equal, start, role))
    if not named:
        return None
    _, start, role = min(named)
    return stem[:start].rstrip(SEPARATORS), role


def _list_starts(stem: str, most_words: int) -> list[int]:
    """Return where the last words of a name begin, and the last but one, and so on."""
    starts = [0]
    for cut in _CUTS.finditer(stem):
        if cut.end() < len(stem):
            starts.append(cut.end())
    return starts[-most_words:]


def _split_words(text: str) -> list[str]:
    return _CUTS.split(fold_name(text))


def _count_words(wanted: Iterable[str]) -> int:
    """Return how many words another name for a channel has at most."""
    longest = max(len(_CUTS.split(name)) for name in wanted)
    return longest + _MORE_WORDS


def _strip_words(text: str) -> str:
    """Take words such as ``image`` off a name, as training does."""
    name, role = split_stem(text)
    return name if role == "image" and name else text


@lru_cache(maxsize=_MOST_KEPT)
def names_channel(role: str, wanted: tuple[str, ...]) -> bool:
    return any(is_same_channel(name, role) for name in wanted)


def _is_one_of(role: str, wanted: Iterable[str]) -> bool:
    return normalize_label(role) in map(normalize_label, wanted)
