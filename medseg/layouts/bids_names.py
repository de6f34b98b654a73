"""Names of files in BIDS: ``sub-01_ses-1_ce-gad_T1w.nii.gz``.

https://bids-specification.readthedocs.io says what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg.names import split_suffix

DSEG = "dseg"
"""Suffix of a label map."""

MASK = "mask"
"""Suffix of a mask."""

LABEL = "label"
"""Entity that says which label a mask is of."""

_SUBJECT = "sub"
_SESSION_ENTITIES = ("ses", "run")
# Entities that tell images of one suffix apart.
_CHANNEL_ENTITIES = (
    *(
        "acq",
        "ce",
        "trc",
        "rec",
        "inv",
        "flip",
        "part",
        "echo",
        "mod",
        "space",
        "desc",
    ),
)
_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")


@dataclass(frozen=True, slots=True)
class BidsFile:
    """A file whose name follows BIDS.

    Attributes:
        file: The file.
        entities: ``sub`` → ``01``, …; in the order of the name.
        suffix: ``T1w``, ``dseg``, …
    """

    file: Path
    entities: Mapping[str, str]
    suffix: str

    @property
    def subject(self) -> str:
        """``sub-01``."""
        return f"sub-{self.entities[_SUBJECT]}"

    @property
    def session(self) -> str:
        """What a label is the label of: ``sub-01_ses-1_run-2``."""
        kept = (_SUBJECT, *_SESSION_ENTITIES)
        return self._write_entities(key for key in self.entities if key in kept)

    @property
    def channel(self) -> str:
        """``ce-gad_T1w``: the suffix, and what tells it from others with the same one."""
        telling = self._write_entities(
            key for key in _CHANNEL_ENTITIES if key in self.entities
        )
        return f"{telling}_{self.suffix}" if telling else self.suffix

    def _write_entities(self, keys: Iterable[str]) -> str:
        return "_".join(f"{key}-{self.entities[key]}" for key in keys)

    @property
    def is_mask(self) -> bool:
        """Whether it is a mask of one label."""
        return self.suffix == MASK

    def is_image_of(self, label: BidsFile) -> bool:
        """Tell whether this image may be one that a label was drawn on.

        They are of one subject, and of one session and run where both say which.
        """
        if self.subject != label.subject:
            return False
        for key in _SESSION_ENTITIES:
            own = self.entities.get(key)
            other = label.entities.get(key)
            if own is not None and other is not None and own != other:
                return False
        return True


def parse_bids_file(file: Path) -> BidsFile | None:
    """Read a file's name; ``None`` where it is no image or does not follow BIDS."""
    stem, ending = split_suffix(file.name)
    if not ending or not stem.startswith("sub-"):
        return None
    *pairs, suffix = stem.split("_")
    entities = parse_entities(pairs)
    if len(entities) < len(pairs) or _SUBJECT not in entities:
        return None
    return BidsFile(file, entities, suffix)


def parse_entities(pairs: Iterable[str]) -> dict[str, str]:
    """Return the entities among parts of a name; parts that are none are left out."""
    entities = {}
    for pair in pairs:
        match = _ENTITY.fullmatch(pair)
        if match is not None:
            entities[match[1]] = match[2]
    return entities
