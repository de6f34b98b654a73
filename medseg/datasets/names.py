"""Names of cases and scans in results.

Most are taken from files. DICOM series, and files of which nobody can say what they hold, are
named by a hash instead: their files, folders and headers may name the patient.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from medseg.io import Series, list_picture_suffixes, list_readable_suffixes
from medseg.io.dicom.volume import DICOM

LONGEST = 100
"""Characters of a name at most, so that suffixes still fit into a file name."""

_CHANNEL = re.compile(r"(?P<base>.+)_(?P<number>\d{4})")
_HASH_DIGITS = 10
_TAG_DIGITS = (6, 16, 64)


def split_suffix(name: str) -> tuple[str, str]:
    """Split a file's name into its stem and the ending by which a reader knows it.

    The ending is ``""`` where no reader knows it.

    Examples:
        >>> split_suffix("a.nii.gz")
        ('a', '.nii.gz')
        >>> split_suffix("notes.txt")
        ('notes.txt', '')
    """
    lowered = name.lower()
    for suffix in list_readable_suffixes():
        if lowered.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def split_channel(stem: str) -> tuple[str, int | None]:
    """Split nnU-Net's channel number off a stem; ``None`` where there is none.

    Examples:
        >>> split_channel("liver_0001")
        ('liver', 1)
        >>> split_channel("liver_1")
        ('liver_1', None)
    """
    match = _CHANNEL.fullmatch(stem)
    if match is None:
        return stem, None
    return match["base"], int(match["number"])


def is_picture(path: PurePath) -> bool:
    """Tell by its ending whether a file is a picture rather than a volume."""
    return split_suffix(path.name)[1] in list_picture_suffixes()


def has_image_suffix(name: str) -> bool:
    """Tell whether a file's ending says that it is an image and no DICOM file."""
    suffix = split_suffix(name)[1]
    return bool(suffix) and suffix not in DICOM.suffixes


def make_safe_name(text: str) -> str:
    """Make ``text`` a name that is a plain file name on every system.

    Only ``A-Z a-z 0-9 . _ -`` stay, others become ``_``; it starts with none of ``.`` and
    ``-``, ends with no dot, and has at most 100 characters.

    Examples:
        >>> make_safe_name("../Müller, liver 7")
        '_M_ller_liver_7'
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
    plain = [make_safe_name(text) for text in wanted]
    digests = [hash_text(origin) for origin in origins]
    names = plain
    # A tagged name may equal another's own name, so tags grow until all names differ.
    for digits in _TAG_DIGITS:
        counts = Counter(name.casefold() for name in names)
        longer = []
        for name, text, digest in zip(names, plain, digests, strict=True):
            if counts[name.casefold()] > 1:
                name = _append_tag(text, digest[:digits])
            longer.append(name)
        names = longer
    return names


def make_series_name(series: Series, root: Path) -> str:
    """Name a DICOM series by a hash of its UID, of its path where it has none.

    Args:
        series: The series.
        root: The folder that was searched; the name does not depend on where that lies.
    """
    identity = identify_series(series, root)
    digest = hash_text(identity)
    return f"series-{digest[:_HASH_DIGITS]}"


def identify_series(series: Series, root: Path) -> str:
    """Return what tells a series from others: its UID, or its path below ``root``."""
    if series.uid:
        return series.uid
    first_file = series.files[0]
    return first_file.relative_to(root).as_posix()


def make_left_out_name(where: str) -> str:
    """Name a file or folder that cannot be used, without telling who the patient is.

    Args:
        where: Its path, relative to what was searched. It need not exist: a link may lead
            nowhere, and then nobody knows whether it would have been DICOM.

    Returns:
        The name of its path, as its result would have been called, if its ending says that it
        is an image and no DICOM file; else a hash.
    """
    if has_image_suffix(where):
        stem, _ = split_suffix(where)
        return make_safe_name(stem.replace("/", "_"))
    digest = hash_text(where)
    return f"file-{digest[:_HASH_DIGITS]}"


def add_tag(name: str, origin: str) -> str:
    """Make a name differ from an equal one by some digits of the hash of ``origin``."""
    digest = hash_text(origin)
    return f"{name}-{digest[: _TAG_DIGITS[0]]}"


def hash_text(text: str) -> str:
    """Return the hexadecimal SHA-256 of a text, whatever bytes a path in it holds."""
    content = text.encode(errors="replace")
    return hashlib.sha256(content).hexdigest()


def make_printable(text: str) -> str:
    """Replace by ``?`` what is no letter or sign, such as commands to a terminal.

    Names of files may hold any bytes.
    """
    signs = []
    for sign in text:
        is_shown = sign.isprintable() or sign == "\n"
        signs.append(sign if is_shown else "?")
    return "".join(signs)


def abbreviate(names: Iterable[str], most: int = 5) -> str:
    """Write a few of many names.

    Examples:
        >>> abbreviate(["liver", "spleen", "skin"], most=2)
        'liver, spleen and 1 more'
    """
    listed = list(names)
    text = ", ".join(listed[:most])
    rest = len(listed) - most
    if rest > 0:
        text += f" and {rest} more"
    return text


def _append_tag(name: str, tag: str) -> str:
    longest = LONGEST - len(tag) - 1
    return f"{name[:longest]}-{tag}"
