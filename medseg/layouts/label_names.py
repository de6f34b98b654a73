"""Labels that files hold by name: which of them a bundle wants, and their values."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from medseg.errors import DatasetError
from medseg.layouts.contract import CaseListing
from medseg.names import abbreviate

_MOST_NAMED = 20


SIDES = {
    "l": "left",
    "lt": "left",
    "left": "left",
    "r": "right",
    "rt": "right",
    "right": "right",
}
"""How the sides of the body are written."""

_SIDE_IN_WORD = re.compile(r"(left|right)(\w{3,})|(\w{3,})(left|right)")
_SPELLINGS = {"tumour": "tumor", "tumours": "tumors", "oedema": "edema"}
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")


def normalize_label(name: str) -> str:
    """Return a label's name as names are compared.

    Capitals, spaces, hyphens, underscores and British spelling do not count; the side is the same
    however it is written, and wherever in the name.

    Examples:
        >>> normalize_label("Kidney_L") == normalize_label("left kidney")
        True
        >>> normalize_label("LeftKidney") == normalize_label("right kidney")
        False
    """
    side = ""
    rest = []
    for word in split_words(name):
        if word in SIDES:
            side = SIDES[word]
        else:
            rest.append(word)
    return f"{side} {''.join(rest)}".strip()


def split_words(name: str) -> list[str]:
    """Return the words of a label's name, in small letters; a side is a word of its own.

    Examples:
        >>> split_words("Left-Kidney (Tumour)")
        ['left', 'kidney', 'tumor']
        >>> split_words("rightlung")
        ['right', 'lung']
    """
    plain = unicodedata.normalize("NFKC", name)
    spaced = _CAMEL_CASE.sub(" ", plain)
    words = []
    for word in re.findall(r"[^\W_]+", spaced.casefold()):
        parts = [word]
        match = _SIDE_IN_WORD.fullmatch(word)
        if match:
            parts = list(filter(None, match.groups()))
        for part in parts:
            american = _SPELLINGS.get(part, part)
            words.append(american)
    if words:
        return words
    # A name of signs alone has no words, and is still a name.
    return [plain.strip().casefold()]


def find_known(
    names: Iterable[str], wanted: Mapping[str, int]
) -> dict[str, int]:
    """Return name → value of those names that a bundle has.

    Args:
        names: As files call their labels.
        wanted: Name → value of the bundle's labels.
    """
    exact = {}
    alike = {}
    for name, value in wanted.items():
        exact[_fold(name)] = value
        alike[normalize_label(name)] = value
    values = {}
    for name in names:
        plain = normalize_label(name)
        # Two labels of a bundle may be the same but for a hyphen.
        if _fold(name) in exact:
            values[name] = exact[_fold(name)]
        elif plain in alike:
            values[name] = alike[plain]
    return values


def _fold(name: str) -> str:
    return name.strip().casefold()


def number_names(
    names: Sequence[str], label_names: Mapping[int, str]
) -> dict[str, int]:
    """Give each name a value; names that are the same as ``normalize_label`` sees it share one.

    Args:
        names: As files call their labels.
        label_names: Value → name, where some names have a value already. Others get the next
            free one.
    """
    known = {
        normalize_label(name): value for value, name in label_names.items()
    }
    values = {}
    for name in names:
        plain = normalize_label(name)
        if plain not in known:
            known[plain] = max(known.values(), default=0) + 1
        values[name] = known[plain]
    return values


def select_labels(
    names: Sequence[str],
    wanted: Mapping[str, int],
    listing: CaseListing,
    kind: str,
) -> dict[str, int]:
    """Return the labels to take, name → value; those that the bundle does not name are warned of.

    Args:
        names: As files call their labels.
        wanted: Name → value of the bundle's labels.
        listing: Takes the warning.
        kind: What holds a label, such as ``mask``.

    Raises:
        DatasetError: If the bundle names none of them.
    """
    values = find_known(names, wanted)
    unnamed = [name for name in names if name not in values]
    if not values:
        raise DatasetError(
            f"holds no {kind} with the name of one of the bundle's labels ({abbreviate(wanted)})",
            source=listing.origin,
            detail=f"those there are {abbreviate(unnamed, _MOST_NAMED)}",
        )
    if unnamed:
        listing.warnings.append(
            f"{kind}s that the bundle does not name count as background: {abbreviate(unnamed)}"
        )
    return values
