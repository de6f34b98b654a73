"""What names of channels say: the modality, and of MR the sequence.

Data sets call the same channel ``T1``, ``T1w``, ``t1n`` or ``MRI``. What a name does not say is
not guessed: nnU-Net's ``zscore`` and ``noNorm`` are names of channels, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from medseg.layouts.label_names import normalize_label

_MODALITIES = {
    "CT": r"ct|cta|cbct|hu",
    "MR": r"mri?|t1\w*|t2\w*|flair|adc|dwi",
    "PT": r"pet|pt|suv",
    "US": r"us|ultrasound",
}
"""DICOM modality → words in a channel's name that speak of it."""

_HINTS = {"MR": r"pd|cine|ce|post|pre|ktrans"}
"""DICOM modality → words that are used of it, and of others, too."""

_SEQUENCES = {
    "FLAIR": r"flair|t2f|t2flair",
    "T1": r"t1|t1w|t1n|t1c|t1ce|t1gd|t1post|t1wce|mprage",
    "T2": r"t2|t2w|t2n|t2tse",
    "ADC": r"adc",
    "DWI": r"dwi",
    "PD": r"pd|pdw",
    "SWI": r"swi",
}
"""Kind of MR → words that speak of it; the first that is found counts."""

_CONTRAST = r"t1c|t1ce|t1gd|t1post|t1wce|ce|gd|gad|post|contrast|c"
_FILLERS = r"weighted|image|scan|w"
_NEGATION = "non"


@dataclass(frozen=True, slots=True)
class MrSequence:
    """A kind of MR that a channel's name speaks of.

    Attributes:
        kind: ``T1``, ``FLAIR``, …
        contrast: Whether contrast agent was given, of T1.
    """

    kind: str
    contrast: bool = False

    def __str__(self) -> str:
        return f"{self.kind} with contrast" if self.contrast else self.kind


def guess_modality(name: str) -> str | None:
    """Return the DICOM modality that a channel's name speaks of, if it does."""
    return _find_modality(name, _HINTS)


def read_modality(name: str) -> str | None:
    """Return the DICOM modality that a channel's name states for certain, if it does.

    Examples:
        >>> read_modality("MRI"), read_modality("T1w"), read_modality("nonCT"), read_modality("ce")
        ('MR', 'MR', None, None)
    """
    return _find_modality(name, {})


def _find_modality(name: str, hints: dict[str, str]) -> str | None:
    words = _split_words(name)
    if _NEGATION in words:
        return None
    for modality, pattern in _MODALITIES.items():
        patterns = [pattern]
        if modality in hints:
            patterns.append(hints[modality])
        if _has_word(words, "|".join(patterns)):
            return modality
    return None


def normalize_modality(text: str) -> str | None:
    """Return a modality as DICOM writes it; ``None`` where it says none.

    Examples:
        >>> normalize_modality("MRI"), normalize_modality("us"), normalize_modality("OT")
        ('MR', 'US', None)
    """
    modality = read_modality(text) or text.strip().upper()
    return None if modality in ("", "OT") else modality


def read_sequence(name: str) -> MrSequence | None:
    """Return the kind of MR that a channel's name states, if it does.

    Examples:
        >>> str(read_sequence("ce-gad_T1w")), str(read_sequence("T2-FLAIR"))
        ('T1 with contrast', 'FLAIR')
    """
    words = _split_words(name)
    kinds = []
    for kind, pattern in _SEQUENCES.items():
        if _has_word(words, pattern):
            kinds.append(kind)
    # A FLAIR is a T2 unless its name says T1, and then it may be taken for either.
    if not kinds or {"FLAIR", "T1"} <= set(kinds):
        return None
    kind = kinds[0]
    contrast = kind == "T1" and _has_word(words, _CONTRAST)
    return MrSequence(kind, contrast)


def is_same_channel(name: str, other: str) -> bool:
    """Tell whether two names are of one channel: ``T1`` and ``T1w``, ``MRI`` and ``MR``.

    Examples:
        >>> is_same_channel("T1w", "T1"), is_same_channel("T1", "T1c"), is_same_channel("PET", "PT")
        (True, False, True)
        >>> is_same_channel("CT arterial", "CT venous")
        False
    """
    if normalize_label(name) == normalize_label(other):
        return True
    meaning = (read_modality(name), read_sequence(name))
    if meaning == (None, None):
        return False
    if meaning != (read_modality(other), read_sequence(other)):
        return False
    return _list_other_words(name) == _list_other_words(other)


def _list_other_words(name: str) -> set[str]:
    """Return the words of a name that say neither modality nor sequence."""
    patterns = [*_MODALITIES.values(), *_SEQUENCES.values(), _FILLERS]
    if read_sequence(name):
        patterns.append(_CONTRAST)
    known = "|".join(patterns)
    words = _split_words(name)
    return {word for word in words if not re.fullmatch(known, word)}


def find_channels(
    wanted: Iterable[str], names: Iterable[str]
) -> tuple[str, ...] | None:
    """Return, of a data set's names, the one of each wanted channel; ``None`` if one has none.

    A name that is equal counts before one that is another word for the channel, and the latter
    only where there is one of them.
    """
    there = list(names)
    found = []
    for name in wanted:
        same = [other for other in there if is_same_channel(name, other)]
        if name in there:
            found.append(name)
        elif len(same) == 1:
            found.append(same[0])
        else:
            return None
    return tuple(found) if len(set(found)) == len(found) else None


def _split_words(name: str) -> list[str]:
    plain = name.casefold().replace("+c", " c")
    return re.sub(r"[^a-z0-9]+", " ", plain).split()


def _has_word(words: Iterable[str], pattern: str) -> bool:
    return any(re.fullmatch(pattern, word) for word in words)
