"""Names of cases and scans: in results, and to tell which files belong together.

Most are taken from files. DICOM series, and files of which nobody can say what they hold, are
named by a hash instead: their files, folders and headers may name the patient.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import PurePath
from typing import Literal

from medseg._support.clashes import find_clashes

LEDGER = "ledger.jsonl"
"""The file that marks a folder of results."""

LONGEST = 100
"""Characters of a name at most, so that suffixes still fit into a file name."""

LONGEST_BYTES = 160
"""Bytes of a name at most, in UTF-8: with its ending it has 200, where systems take 255."""

_LONGEST_FILE_NAME = 200

_CHANNEL = re.compile(r"(?P<base>.+)_(?P<number>\d{4})")

Role = Literal["image", "label", "prediction", ""]
"""What a file's name says that the file is."""

ROLE_WORDS: Mapping[Role, str] = {
    "image": r"im|imgs?|images?(?:tr|ts)?|scans?|vol|volume",
    "label": (
        r"labels?(?:tr|ts)?|lbl|d?seg|segs|segmentations?|masks?|gt|ground_?truth|truth|"
        r"manual|anno|annot|annotations?"
    ),
    "prediction": r"preds?|predictions?|predicted|results?|outputs?",
}
"""Role → the words for it, whatever their capitals."""

_WORDS = "|".join(f"(?P<{role}>{words})" for role, words in ROLE_WORDS.items())
_LAST_WORDS = re.compile(
    rf"(?P<base>.*[^_.\- ])[_.\- ]+(?:{_WORDS})", re.IGNORECASE
)
_FIRST_WORDS = re.compile(
    rf"(?:{_WORDS})(?:[_.\- ]+|(?=\d))(?P<base>[^_.\- ].*)", re.IGNORECASE
)

_LABEL_WORD = re.compile(
    f"{ROLE_WORDS['label']}|{ROLE_WORDS['prediction']}", re.IGNORECASE
)

# What nearly all names are like: safe by themselves, and quicker to recognise.
_PLAIN = re.compile(
    rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{_LONGEST_FILE_NAME - 1}}}"
)

_TAG_DIGITS = (6, 16, 64)

# Letters and marks that show nothing, or change how others are shown: fillers of Hangul, vowels
# of Khmer, selectors of variants. Unicode calls them ignorable, but not of category Cf.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)

# Windows takes these for devices, whatever ending follows.
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])(?=\.|$)",
    re.IGNORECASE,
)


def split_suffix(name: str) -> tuple[str, str]:
    """Split a file's name into its stem and the ending by which a reader knows it.

    The ending is ``""`` where no reader knows it.

    Examples:
        >>> split_suffix("a.nii.gz")
        ('a', '.nii.gz')
        >>> split_suffix("notes.txt")
        ('notes.txt', '')
    """
    from medseg.io.registry import list_readable_suffixes

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


def split_role(stem: str) -> tuple[str, Role]:
    """Split off a name the words that say what a file is: image, label or prediction.

    They stand behind a separator at the end (``c_gt``, ``c-label``, ``c.seg``), or at the
    beginning before a separator or a number (``mask_001``, ``img0001``).

    Args:
        stem: A file's name without its ending; folders may stand before it.

    Returns:
        What is left, in NFC, and the role; ``""`` where no word says it.

    Examples:
        >>> split_role("site1/label0001")
        ('site1/0001', 'label')
        >>> split_role("masked_001")
        ('masked_001', '')
    """
    folder, slash, name = normalize_name(stem).rpartition("/")
    role: Role = ""
    for pattern in (_LAST_WORDS, _FIRST_WORDS):
        while match := pattern.fullmatch(name):
            name = match["base"]
            # The last word of a name says it: img0001_seg is a label.
            role = role or _get_role(match)
    return f"{folder}{slash}{name}", role


def _get_role(match: re.Match[str]) -> Role:
    for role in ROLE_WORDS:
        if match[role] is not None:
            return role
    return ""


def is_label_word(name: str) -> bool:
    """Tell whether the whole name of a folder, or of a file without its ending, says labels.

    Examples:
        >>> is_label_word("segmentations"), is_label_word("s0001")
        (True, False)
    """
    return _LABEL_WORD.fullmatch(name) is not None


def make_pair_key(stem: str) -> str:
    """Return what the names of an image, its label and its predictions share.

    Examples:
        >>> make_pair_key("IMG_07") == make_pair_key("mask07")
        True
    """
    name, _ = split_role(stem)
    return fold_name(name)


def is_picture(path: PurePath) -> bool:
    """Tell by its ending whether a file is a picture rather than a volume."""
    from medseg.io.registry import list_picture_suffixes

    return split_suffix(path.name)[1] in list_picture_suffixes()


def has_image_suffix(name: str) -> bool:
    """Tell whether a file's ending says that it is an image and no DICOM file."""
    from medseg.io.dicom.volume import DICOM

    suffix = split_suffix(name)[1]
    return bool(suffix) and suffix not in DICOM.suffixes


def normalize_name(text: str) -> str:
    """Return the one form (NFC) of a text that systems write in several.

    macOS hands out ``e`` and an accent where others write ``é``. Names are compared in this form.
    """
    return unicodedata.normalize("NFC", text)


def fold_name(text: str) -> str:
    """Return what two names share that one file system or another takes for the same."""
    if text.isascii():
        return text.lower()  # the same, and soon known
    return normalize_name(normalize_name(text).casefold())


def make_safe_name(text: str) -> str:
    """Make ``text`` a name that is a plain file name on every system.

    Letters and digits of every script stay, and ``. _ -``; others become ``_``, and what shows
    nothing goes. It is in NFC, starts with none of ``.`` and ``-``, ends with no dot, names no
    device of Windows, and has at most 100 characters and 160 bytes. Where letters beyond ASCII
    make it longer, it ends in some digits of a hash.

    Examples:
        >>> make_safe_name("../Müller, liver 7")
        '_Müller_liver_7'
    """
    is_plain = _PLAIN.fullmatch(text) is not None
    plain = text if is_plain else _keep_letters(text)
    if _DEVICE.match(plain):
        plain = f"_{plain}"
    if plain.isascii():
        return plain[:LONGEST].rstrip(".") or "scan"
    plain = plain.rstrip(".")
    if _cut(plain, LONGEST, LONGEST_BYTES) == plain:
        return plain
    digest = hash_text(plain)
    return _append_tag(plain, digest[: _TAG_DIGITS[0]])


def is_safe_name(text: str) -> bool:
    """Tell whether a text is a file name that leads nowhere else and shows all it holds."""
    if _PLAIN.fullmatch(text):
        return True
    if not text or _keep_letters(text) != text:
        return False
    return len(text.encode()) <= _LONGEST_FILE_NAME


def is_device_name(text: str) -> bool:
    """Tell whether Windows takes a file name for a device, whatever its ending."""
    return _DEVICE.match(text) is not None


def make_former_name(text: str) -> str:
    """Make the name that release 0.1.0 gave: of ASCII alone."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".-")
    return plain[:LONGEST].rstrip(".") or "scan"


def _keep_letters(text: str) -> str:
    """Replace by ``_`` what is no letter, mark or digit of any script, and none of ``._-``."""
    shown = _IGNORABLE.sub("", normalize_name(text))
    signs = []
    for sign in shown:
        category = unicodedata.category(sign)
        if category == "Cf":
            continue
        is_kept = category[0] in "LMN" or sign in "._-"
        signs.append(sign if is_kept else " ")
    plain = re.sub(" +", "_", "".join(signs))
    start = 0
    # An accent needs a letter to stand on.
    while start < len(plain) and _is_poor_start(plain[start]):
        start += 1
    return normalize_name(plain[start:])


def _is_poor_start(sign: str) -> bool:
    return sign in ".-" or _is_mark(sign)


def distinct_names(
    wanted: Sequence[str],
    origins: Iterable[str],
    make_name: Callable[[str], str] = make_safe_name,
) -> list[str]:
    """Make safe names that differ from each other even where capitals do not count.

    Names that would be equal get a few digits of the hash of where they come from, each of
    them, so that a name does not depend on the order.

    Args:
        wanted: The texts to make names of.
        origins: A different text for each: its path, its UID.
        make_name: Makes a name of one text.
    """
    plain = [make_name(text) for text in wanted]
    pairs = list(zip(plain, origins, strict=True))
    tags = find_tags(lambda: pairs)
    return [tags.add_to(name, origin) for name, origin in pairs]


@dataclass(frozen=True, slots=True)
class NameTags:
    """Which names get some digits of a hash, so that all differ.

    Attributes:
        clashes: Names that several would have, folded: as they are, then with few digits, then
            with more. A tagged name may equal another's own name, so tags grow.
    """

    clashes: tuple[Set[str], ...] = ()

    def add_to(self, name: str, origin: str) -> str:
        """Return a name that no other one has.

        Args:
            name: A safe name.
            origin: What tells its owner from others.
        """
        tagged = name
        for clashes, digits in zip(self.clashes, _TAG_DIGITS, strict=False):
            if fold_name(tagged) in clashes:
                digest = hash_text(origin)
                tagged = _append_tag(name, digest[:digits])
        return tagged


def find_tags(pairs: Callable[[], Iterable[tuple[str, str]]]) -> NameTags:
    """Find the names that need a tag; only these are held.

    Args:
        pairs: Gives, as often as it is asked, each safe name and a text that no other one has.
    """

    def fold_all(tags: NameTags) -> Iterator[str]:
        for name, origin in pairs():
            yield fold_name(tags.add_to(name, origin))

    tags = NameTags()
    for _ in _TAG_DIGITS:
        clashes = find_clashes(partial(fold_all, tags))
        if not clashes:
            break
        tags = NameTags((*tags.clashes, clashes))
    return tags


def add_tag(name: str, origin: str) -> str:
    """Make a name differ from an equal one by some digits of the hash of ``origin``."""
    digest = hash_text(origin)
    return f"{name}-{digest[: _TAG_DIGITS[0]]}"


def hash_text(text: str) -> str:
    """Return the hexadecimal SHA-256 of a text, whatever bytes a path in it holds."""
    # Bytes that are no text come as surrogates, and two such names must not share a hash.
    content = text.encode(errors="surrogatepass")
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
    rest_of_names = iter(names)
    text = ", ".join(islice(rest_of_names, most))
    rest = sum(1 for _ in rest_of_names)
    if rest:
        text += f" and {rest} more"
    return text


def format_minutes(minutes: float) -> str:
    """Write a time that a person gave in minutes: ``1 minute``, ``1.5 minutes``."""
    return "1 minute" if minutes == 1 else f"{minutes:g} minutes"


def _append_tag(name: str, tag: str) -> str:
    room = len(tag) + 1
    short = _cut(name, LONGEST - room, LONGEST_BYTES - room)
    return f"{short}-{tag}"


def _cut(name: str, characters: int, most_bytes: int) -> str:
    """Cut a name where people see a character end: an accent stays with its letter."""
    end = min(len(name), characters)
    while len(name[:end].encode()) > most_bytes:
        end -= 1
    middle = end
    while 0 < middle < len(name) and _is_mark(name[middle]):
        middle -= 1
    return name[: middle or end]


def _is_mark(sign: str) -> bool:
    return unicodedata.category(sign).startswith("M")
