"""Names of cases and scans, taken from their files."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from medseg.io import FORMATS
from medseg.io.pictures import PICTURE

LONGEST = 100
"""Characters of a name at most, so that suffixes still fit into a file name."""

PICTURE_SUFFIXES = frozenset(PICTURE.suffixes)
"""Endings of files that hold a picture and know no patient space."""

_CHANNEL = re.compile(r"(?P<base>.+)_(?P<number>\d{4})")
_SUFFIXES = sorted({ending for kind in FORMATS for ending in kind.suffixes}, key=len, reverse=True)


def split_suffix(name: str) -> tuple[str, str]:
    """Split a file's name into its stem and the ending by which a reader knows it.

    The ending is ``""`` where no reader knows it: ``a.nii.gz`` → ``("a", ".nii.gz")``,
    ``notes.txt`` → ``("notes.txt", "")``.
    """
    lowered = name.lower()
    for suffix in _SUFFIXES:
        if suffix and lowered.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def split_channel(stem: str) -> tuple[str, int | None]:
    """Split nnU-Net's channel number off a stem: ``liver_0001`` → ``("liver", 1)``."""
    found = _CHANNEL.fullmatch(stem)
    return (found["base"], int(found["number"])) if found else (stem, None)


def is_picture(path: PurePath) -> bool:
    """Tell by its ending whether a file is a picture rather than a volume."""
    return split_suffix(path.name)[1] in PICTURE_SUFFIXES


def make_safe_name(text: str) -> str:
    """Make ``text`` a name that is a plain file name on every system.

    Only ``A-Z a-z 0-9 . _ -`` stay, others become ``_``; it starts with none of ``.`` and
    ``-``, ends with no dot, and has at most 100 characters.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".-")
    return plain[:LONGEST].rstrip(".") or "scan"


def distinct_names(wanted: Sequence[str], origins: Iterable[str]) -> list[str]:
    """Make safe names that differ from each other even where capitals do not count.

    Names that would be equal get a few digits of the hash of where they come from, each of
    them, so that a name does not depend on the order.

    Args:
        wanted: The texts to make names of.
        origins: A different text for each: its path, its UID.
    """
    digests = [hashlib.sha256(origin.encode(errors="replace")).hexdigest() for origin in origins]
    names = [make_safe_name(text) for text in wanted]
    for length in (6, 16, 64):
        often = Counter(name.casefold() for name in names)
        names = [
            _tagged(make_safe_name(text), digest[:length]) if often[name.casefold()] > 1 else name
            for name, text, digest in zip(names, wanted, digests, strict=True)
        ]
    return names


def _tagged(name: str, tag: str) -> str:
    return f"{name[: LONGEST - len(tag) - 1]}-{tag}"
