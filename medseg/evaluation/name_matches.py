"""Which names of predictions and references mean one case."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from medseg.names import (
    fold_name,
    make_former_name,
    make_pair_key,
    make_safe_name,
)

# What may follow a case's name on one of the two sides: `_seg`, `-mask_v2`, or the channel number
# of nnU-Net's images. Other digits are part of the name: case_1_2 is not case_1.
_ADDITION = re.compile(r"[_.\- ](?:(?=[^\W\d_])|0000$)")

# What `medseg segment` puts before a name where it was given a data set: the folder of its images.
_FOLDER = re.compile(r"^images(?:tr|ts)?_(?=.)")


@dataclass(frozen=True, slots=True)
class Matches:
    """Names of references and predictions that belong together, or may.

    Attributes:
        partners: The reference's name → the prediction's name, where only one pair is possible.
        possible: Reference and prediction of every possible pair of names that differ.
    """

    partners: Mapping[str, str]
    possible: Sequence[tuple[str, str]]

    def list_predictions(self, reference: str) -> list[str]:
        """Return the predictions that a reference may belong to."""
        pairs = self.possible
        return sorted(other for name, other in pairs if name == reference)

    def list_references(self, prediction: str) -> list[str]:
        """Return the references that a prediction may belong to."""
        pairs = self.possible
        return sorted(name for name, other in pairs if other == prediction)

    def unmatched(self, predicted: Set[str]) -> list[str]:
        """Return the predictions that belong to no reference."""
        return sorted(predicted - set(self.partners.values()))


def match_names(predicted: Set[str], expected: Set[str]) -> Matches:
    """Find out which names of predictions and of references belong together, or may.

    Args:
        predicted: Names of predictions.
        expected: Names of references.
    """
    possible = _find_possible_pairs(predicted, expected)
    counts: Counter[str] = Counter()
    for pair in possible:
        counts.update(pair)
    certain = {
        reference: prediction
        for reference, prediction in possible
        if counts[reference] == counts[prediction] == 1
    }
    same_name = {name: name for name in predicted & expected}
    return Matches(same_name | certain, possible)


def _find_possible_pairs(
    predicted: Set[str], expected: Set[str]
) -> list[tuple[str, str]]:
    """Return reference and prediction wherever their names may mean one case.

    A prediction may have the name that release 0.1.0 gave its scan.
    """
    names: dict[str, set[str]] = defaultdict(set)
    stems: dict[str, set[str]] = defaultdict(set)
    keys: dict[str, set[str]] = defaultdict(set)
    for prediction in predicted - expected:
        names[_make_name(prediction)].add(prediction)
        keys[_make_key(prediction)].add(prediction)
        for stem in _find_stems(prediction):
            stems[stem].add(prediction)
    possible: list[tuple[str, str]] = []
    for reference in expected - predicted:
        candidates = set(keys[_make_key(reference)])
        candidates |= stems[_make_name(reference)]
        for form in ("NFC", "NFD"):
            text = unicodedata.normalize(form, reference)
            candidates |= stems[fold_name(make_former_name(text))]
        for stem in _find_stems(reference):
            candidates |= names[stem]
        for prediction in candidates:
            possible.append((reference, prediction))
    return possible


def _make_name(name: str) -> str:
    """Return a name as results are called by it, whatever its capitals."""
    return fold_name(make_safe_name(name))


def _find_stems(name: str) -> set[str]:
    """Return a name as results are called by it, and without its additions.

    ``a_seg_v2`` → ``{"a", "a_seg", "a_seg_v2"}``, and ``case 7`` → ``{"case_7"}``.
    """
    safe = _make_name(name)
    bare = _FOLDER.sub("", safe)
    stems = {safe, bare}
    for addition in _ADDITION.finditer(bare):
        stems.add(_make_name(bare[: addition.start()] or safe))
    return stems


def _make_key(name: str) -> str:
    """Return what is left without words such as ``pred`` and ``label`` and nnU-Net's channel."""
    safe = make_safe_name(name.removesuffix("_0000"))
    return _make_name(make_pair_key(safe))
