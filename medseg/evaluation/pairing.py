"""Predictions and what they are compared with, paired by the names of their files."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.datasets.cases import Scan
from medseg.datasets.names import make_safe_name, split_suffix
from medseg.errors import DatasetError, Fault

LABEL_FOLDERS = ("labelsTr", "labels", "labelsTs", "masks")
"""Where the label maps of a dataset folder lie, if not in the folder itself."""

# What may follow a case's name on one of the two sides: `_seg`, `-mask_v2`, or the channel number
# of nnU-Net's images. Other digits are part of the name: case_1_2 is not case_1.
_ADDITION = re.compile(r"[_.\- ](?:(?=[A-Za-z])|0000$)")

# What `medseg segment` puts before a name where it was given a data set: the folder of its images.
_FOLDER = re.compile(r"^images(?:Tr|Ts)?_(?=.)")

_Files = Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Pair:
    """A predicted label map and the reference it is compared with."""

    case: str
    prediction: Path
    reference: Path


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two folders, file by file.

    Attributes:
        pairs: What belongs together, sorted by case.
        faults: References without a certain prediction.
        without_reference: Names of predictions that no reference belongs to.
    """

    pairs: tuple[Pair, ...]
    faults: tuple[Fault, ...]
    without_reference: tuple[str, ...]

    def named_like(self, other: Pairing) -> Pairing:
        """Call each case what it is called in another pairing with the same references."""
        known = {split_suffix(str(pair.reference))[0]: pair.case for pair in other.pairs}
        pairs = (
            replace(pair, case=known.get(split_suffix(str(pair.reference))[0], pair.case))
            for pair in self.pairs
        )
        return replace(self, pairs=tuple(pairs))


@dataclass(frozen=True, slots=True)
class ScanPairing:
    """Label maps and their scans.

    Attributes:
        pairs: Label map and scan, sorted by the scan's name.
        faults: Label maps without a certain scan.
        without_prediction: Names of scans that no label map belongs to.
    """

    pairs: tuple[tuple[Path, Scan], ...]
    faults: tuple[Fault, ...]
    without_prediction: tuple[str, ...]


def pair_predictions(predictions: Path, references: Path) -> Pairing:
    """Pair two folders of label maps, or two label maps.

    Names are compared without their endings. One name may go on after the other (``case_7`` and
    ``case_7_seg``) or follow a folder of images (``imagesTr_case_7``), as long as only one pair is
    possible.

    Args:
        predictions: A folder of label maps, or one label map.
        references: The same, or a dataset folder with its label maps in ``labelsTr`` or
            ``labels``.

    Raises:
        DatasetError: If nothing can be paired.
    """
    if predictions.is_file() and references.is_file():
        case = split_suffix(predictions.name)[0]
        return Pairing((Pair(case, predictions, references),), (), ())
    predicted, expected = _label_maps(predictions), _label_maps(references)
    possible = _possible(predicted.keys(), expected.keys())
    partners = _partners(predicted.keys(), expected.keys(), possible)
    pairs, faults = [], []
    for name in sorted(expected):
        if name not in partners:
            near = sorted(prediction for reference, prediction in possible if reference == name)
            faults.append(Fault(name, _unpaired(near)))
            continue
        files = _of_one_format(predicted[partners[name]], expected[name])
        if files is None:
            listed = ", ".join(path.name for path in predicted[partners[name]].values())
            faults.append(Fault(name, f"it is not clear which file to compare: {listed}; keep one"))
            continue
        pairs.append(Pair(min(name, partners[name], key=len), *files))
    if not pairs:
        raise DatasetError(
            f"no label map in {predictions} has the name of one in {references}; name each "
            "prediction as its reference is named",
            faults,
        )
    alone = sorted(predicted.keys() - set(partners.values()))
    return Pairing(tuple(pairs), tuple(faults), tuple(alone))


def pair_with_scans(predictions: Path, scans: Sequence[Scan]) -> ScanPairing:
    """Pair label maps with the scans they were drawn on, by the rules of ``pair_up``.

    Args:
        predictions: A folder of label maps, or one label map.
        scans: The scans; one scan and one label map belong together whatever their names.

    Raises:
        DatasetError: If nothing can be paired.
    """
    if predictions.is_file() and len(scans) == 1:
        return ScanPairing(((predictions, scans[0]),), (), ())
    predicted = _one_label_map(predictions) or _label_maps(predictions)
    known = {scan.name: scan for scan in scans}
    possible = _possible(predicted.keys(), known.keys())
    partners = _partners(predicted.keys(), known.keys(), possible)
    pairs, faults = [], []
    for name, partner in sorted(partners.items()):
        files = list(predicted[partner].values())
        if len(files) > 1:
            listed = ", ".join(path.name for path in files)
            faults.append(
                Fault(partner, f"it is not clear which file to judge: {listed}; keep one")
            )
            continue
        pairs.append((files[0], known[name]))
    alone = sorted(predicted.keys() - set(partners.values()))
    faults.extend(
        Fault(name, "has no scan of its name; rename it, or add its scan") for name in alone
    )
    if not pairs:
        raise DatasetError(
            f"no label map in {predictions} has the name of a scan; name each label map as its "
            "scan is named",
            faults,
        )
    return ScanPairing(tuple(pairs), tuple(faults), tuple(sorted(known.keys() - partners.keys())))


def _one_label_map(file: Path) -> dict[str, dict[str, Path]]:
    name, ending = split_suffix(file.name)
    return {name: {ending: file}} if ending and file.is_file() else {}


def _label_maps(folder: Path) -> dict[str, dict[str, Path]]:
    """Return name → ending → file, of the folder itself or of its folder of label maps."""
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: {'is a file' if folder.exists() else 'does not exist'}; "
            "two folders or two label maps are compared"
        )
    for place in (folder, *(folder / name for name in LABEL_FOLDERS)):
        found: dict[str, dict[str, Path]] = {}
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            name, ending = split_suffix(path.name)
            if ending and path.is_file() and not path.name.startswith("."):
                found.setdefault(name, {})[ending] = path
        if found:
            return found
    raise DatasetError(f"{folder}: holds no label maps, nor do {', '.join(LABEL_FOLDERS)} in it")


def _unpaired(near: Sequence[str]) -> str:
    if not near:
        return "has no prediction; segment its scan, or rename its file"
    return (
        f"it is not certain that its prediction is {' or '.join(near)}; name it as the reference "
        "is named"
    )


def _possible(predicted: Set[str], expected: Set[str]) -> list[tuple[str, str]]:
    """Return reference and prediction of every possible pair of names that differ."""
    by_name: dict[str, set[str]] = defaultdict(set)
    by_start: dict[str, set[str]] = defaultdict(set)
    for prediction in predicted - expected:
        by_name[make_safe_name(prediction)].add(prediction)
        for start in _starts(prediction):
            by_start[start].add(prediction)
    return [
        (reference, prediction)
        for reference in expected - predicted
        for prediction in by_start.get(make_safe_name(reference), set()).union(
            *(by_name.get(start, set()) for start in _starts(reference))
        )
    ]


def _partners(
    predicted: Set[str], expected: Set[str], possible: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """Return the reference's name → the prediction's name, where only one pair is possible."""
    often = Counter(name for pair in possible for name in pair)
    certain = {one: other for one, other in possible if often[one] == often[other] == 1}
    return {name: name for name in predicted & expected} | certain


def _starts(name: str) -> set[str]:
    """Return a name as results are called by it, and without its additions.

    ``a_seg_v2`` → ``{"a", "a_seg", "a_seg_v2"}``, and ``case 7`` → ``{"case_7"}``.
    """
    safe = make_safe_name(name)
    bare = _FOLDER.sub("", safe)
    return {safe, bare, *(bare[: found.start()] for found in _ADDITION.finditer(bare))} - {""}


def _of_one_format(one: _Files, other: _Files) -> tuple[Path, Path] | None:
    """Choose the files to compare where a result was written in several formats."""
    for ending in one:
        if ending in other:
            return one[ending], other[ending]
    if len(one) == len(other) == 1:
        return next(iter(one.values())), next(iter(other.values()))
    return None
