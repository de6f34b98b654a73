"""Regions of the body, as headers and names of labels tell them.

A header's words are typed by people and by scanners, so only what is in the table below counts,
and only the names of regions are kept: free text may name the patient.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

_ORGANS = {
    "head": "BRAIN SKULL HIPPOCAMPUS CEREBRUM CEREBELLUM THALAMUS PITUITARY",
    "neck": "THYROID LARYNX PHARYNX",
    "chest": "LUNG LUNGS HEART MYOCARDIUM BREAST STERNUM RIB RIBS TRACHEA",
    "abdomen": "LIVER KIDNEY KIDNEYS SPLEEN PANCREAS STOMACH GALLBLADDER DUODENUM",
    "pelvis": "PROSTATE UTERUS RECTUM SACRUM OVARY",
    "upper limb": "HUMERUS ULNA",
    "lower limb": "FEMUR TIBIA FIBULA PATELLA",
}
"""Names of labels: an organ of this name lies nowhere else."""
_PARTS = {
    "head": "HEAD CRANIUM ORBIT ORBITS SINUS IAC",
    "neck": "NECK CSPINE CAROTID",
    "chest": "CHEST THORAX CARDIAC TSPINE MEDIASTINUM",
    "abdomen": "ABDOMEN ABD HEPATIC RENAL LSPINE",
    "pelvis": "PELVIS BLADDER HIP CERVIX",
    "upper limb": "ARM SHOULDER ELBOW FOREARM WRIST HAND FINGER CLAVICLE EXTREMITY EXTREMITIES",
    "lower limb": "LEG THIGH KNEE CALF ANKLE FOOT FEET TOE EXTREMITY EXTREMITIES",
}
"""What headers call a region besides; as the name of a label it can mean the neck of a femur."""
_WHOLE = frozenset(["WHOLEBODY", "BODY", "WB"])
_TRUNK = frozenset(["TRUNK", "TORSO"])
_JOINED = {
    "CHESTABDPELVIS": ("chest", "abdomen", "pelvis"),
    "CHESTABDOMEN": ("chest", "abdomen"),
    "CHESTABD": ("chest", "abdomen"),
    "ABDOMENPELVIS": ("abdomen", "pelvis"),
    "ABDPELVIS": ("abdomen", "pelvis"),
    "HEADNECK": ("head", "neck"),
    "NECKCHEST": ("neck", "chest"),
    "NECKCHESTABDOMEN": ("neck", "chest", "abdomen"),
    "NECKCHESTABDPELV": ("neck", "chest", "abdomen", "pelvis"),
}

REGIONS = tuple(_PARTS)
"""From head to foot."""


def _index_words(
    *tables: Mapping[str, str],
) -> dict[str, tuple[str, ...]]:
    """Return word → the regions that it names."""
    found: dict[str, tuple[str, ...]] = {}
    for table in tables:
        for region, words in table.items():
            for word in words.split():
                found[word] = (*found.get(word, ()), region)
    return found


_BY_ORGAN = _index_words(_ORGANS)
_BY_WORD = _index_words(_ORGANS, _PARTS)
_BY_WORD |= _JOINED
_BY_WORD |= dict.fromkeys(_WHOLE, REGIONS)
_BY_WORD |= dict.fromkeys(_TRUNK, ("chest", "abdomen", "pelvis"))


def find_regions(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the regions of the body that values of a header name, from head to foot.

    Examples:
        >>> find_regions(["ABDOMEN PELVIS", "Mr. Smith"])
        ('abdomen', 'pelvis')
    """
    return _look_up(texts, _BY_WORD)


def find_organ_regions(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the regions in which organs lie, by names of labels, from head to foot.

    Examples:
        >>> find_organ_regions(["left kidney", "tumour"])
        ('abdomen',)
    """
    return _look_up(labels, _BY_ORGAN)


def _look_up(
    texts: Iterable[str], regions: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    found: set[str] = set()
    for text in texts:
        # `C_SPINE` is one word.
        upper = re.sub(r"\b([CTL])[ _-]SPINE", r"\1SPINE", text.upper())
        for word in re.findall(r"[A-Z]+", upper):
            found.update(regions.get(word, ()))
    return tuple(region for region in REGIONS if region in found)
