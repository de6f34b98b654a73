"""Pairs predictions with what they are compared with, by the names of their files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg._support.folders import refuse_unreadable
from medseg.datasets.cases import Scan
from medseg.errors import DatasetError, Fault
from medseg.evaluation.name_matches import Matches, match_names
from medseg.evaluation.references import (
    fits_pattern,
    holds_cases,
    list_references,
)
from medseg.layouts import LabelSource, Selection
from medseg.names import (
    normalize_name,
    split_suffix,
)

LABEL_FOLDERS = ("labelsTr", "labels", "labelsTs", "masks")
"""Where the label maps of a dataset folder are, if not in the folder itself."""

_ANYTHING = Selection()

_Files = list[Path]
"""Files of one name, in the order of their endings."""

_LabelMaps = dict[str, _Files]
"""Name, in NFC → its files."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A predicted label map and the reference it is compared with.

    Attributes:
        case: What both are called.
        prediction: The label map.
        reference: The reference, or the first of its masks.
        source: The reference, where it is masks, one file for each structure.
    """

    case: str
    prediction: Path
    reference: Path
    source: LabelSource | None = None

    @property
    def reference_stem(self) -> str:
        """The reference's path without its ending."""
        return split_suffix(str(self.reference))[0]


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

    @property
    def files(self) -> list[Path]:
        """Every file of a pair."""
        files = []
        for pair in self.pairs:
            files += [pair.prediction, pair.reference]
        return files

    def rename_like(self, other: Pairing) -> Pairing:
        """Call each case what it is called in another pairing with the same references."""
        names = {pair.reference_stem: pair.case for pair in other.pairs}
        renamed = []
        for pair in self.pairs:
            case = names.get(pair.reference_stem, pair.case)
            renamed.append(replace(pair, case=case))
        return replace(self, pairs=tuple(renamed))


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


def pair_predictions(
    predictions: Path,
    references: Path,
    selection: Selection = _ANYTHING,
) -> Pairing:
    """Pair two folders of label maps, or two label maps.

    Names are compared without their endings, in one form of Unicode. One name may continue the
    other (``case_7`` and ``case_7_seg``), follow a folder of images (``imagesTr_case_7``) or
    differ in capitals, and both may say what they are (``img0001`` and ``label0001``, ``c_pred``
    and ``c_gt``), as long as only one pair is possible.

    Args:
        predictions: A folder of label maps, or one label map.
        references: The same, or a dataset folder with its label maps in ``labelsTr`` or
            ``labels``, or with images and labels together.
        selection: What a bundle says of its data: which files are labels, and the values of masks
            of single structures.

    Raises:
        DatasetError: If nothing can be paired.
    """
    if predictions.is_file() and references.is_file():
        case = split_suffix(predictions.name)[0]
        return Pairing((Pair(case, predictions, references),), (), ())
    predicted = _find_label_maps(predictions)
    expected, sources = _find_references(references, predicted, selection)
    matches = match_names(predicted.keys(), expected.keys())
    pairs: list[Pair] = []
    faults: list[Fault] = []
    for name in sorted(expected):
        partner = matches.partners.get(name)
        if partner is None:
            faults.append(_make_unpaired_fault(name, matches))
            continue
        files = _choose_files(predicted[partner], expected[name])
        if files is None:
            faults.append(_make_ambiguous_fault(name, predicted[partner]))
            continue
        prediction, reference = files
        case = min(name, partner, key=len)
        source = sources.get(reference)
        pairs.append(Pair(case, prediction, reference, source))
    if not pairs:
        raise DatasetError(
            "no prediction has the name of a reference; name each prediction like its reference",
            faults,
            source=predictions,
            detail=f"references: {references}",
        )
    without_reference = matches.unmatched(predicted.keys())
    return Pairing(tuple(pairs), tuple(faults), tuple(without_reference))


def pair_with_scans(predictions: Path, scans: Sequence[Scan]) -> ScanPairing:
    """Pair label maps with the scans they were drawn on, by the rules of ``pair_predictions``.

    Args:
        predictions: A folder of label maps, or one label map.
        scans: The scans; one scan and one label map belong together whatever their names.

    Raises:
        DatasetError: If nothing can be paired.
    """
    if predictions.is_file() and len(scans) == 1:
        return ScanPairing(((predictions, scans[0]),), (), ())
    predicted = _find_single_label_map(predictions) or _find_label_maps(
        predictions
    )
    by_name = {scan.name: scan for scan in scans}
    matches = match_names(predicted.keys(), by_name.keys())
    partners = matches.partners
    pairs: list[tuple[Path, Scan]] = []
    faults: list[Fault] = []
    for name in sorted(partners):
        partner = partners[name]
        files = predicted[partner]
        if len(files) > 1:
            faults.append(_make_ambiguous_fault(partner, files))
            continue
        pairs.append((files[0], by_name[name]))
    for name in matches.unmatched(predicted.keys()):
        faults.append(_make_scanless_fault(name, matches))
    if not pairs:
        raise DatasetError(
            "no label map has the name of a scan; name each label map like its scan",
            faults,
            source=predictions,
        )
    without_prediction = sorted(by_name.keys() - partners.keys())
    return ScanPairing(tuple(pairs), tuple(faults), tuple(without_prediction))


def _find_single_label_map(file: Path) -> _LabelMaps:
    name, ending = split_suffix(file.name)
    if not ending or not file.is_file():
        return {}
    return {normalize_name(name): [file]}


def _find_label_maps(folder: Path) -> _LabelMaps:
    """Return the label maps of the folder itself, or of its folder of label maps."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DatasetError(
            f"{what}; a folder of label maps is needed, or a single one on each side",
            source=folder,
        )
    candidates = [folder]
    candidates += [folder / name for name in LABEL_FOLDERS]
    for candidate in candidates:
        label_maps = _list_label_maps(candidate)
        if label_maps:
            return label_maps
    raise DatasetError(
        f"holds no label maps, nor do {', '.join(LABEL_FOLDERS)} in it",
        source=folder,
    )


def _find_references(
    folder: Path,
    predicted: _LabelMaps,
    selection: Selection,
) -> tuple[_LabelMaps, Mapping[Path, LabelSource]]:
    """Return the references, and by their first files those that are several masks.

    Where images lie with them, they are told from these as in training.
    """
    is_chosen = fits_pattern(folder, selection.label_pattern)
    is_mixed = not _keeps_labels_apart(folder) and holds_cases(folder)
    if not is_chosen and not is_mixed:
        return _find_label_maps(folder), {}
    expected: _LabelMaps = {}
    sources: dict[Path, LabelSource] = {}
    for reference in list_references(folder, predicted.keys(), selection):
        expected[reference.name] = [reference.file]
        if reference.source is not None:
            sources[reference.file] = reference.source
    return expected, sources


def _keeps_labels_apart(folder: Path) -> bool:
    """Tell whether label maps have a folder of their own in it, and none lie beside that."""
    subfolders = [folder / name for name in LABEL_FOLDERS]
    has_own_folder = any(_list_label_maps(path) for path in subfolders)
    return has_own_folder and not _list_label_maps(folder)


def _list_label_maps(folder: Path) -> _LabelMaps:
    label_maps: _LabelMaps = defaultdict(list)
    for path in _list_visible_files(folder):
        name, ending = split_suffix(path.name)
        if ending:
            label_maps[normalize_name(name)].append(path)
    return label_maps


def _list_visible_files(folder: Path) -> Iterator[Path]:
    refuse_unreadable(folder, DatasetError)
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            yield path


def _make_unpaired_fault(reference: str, matches: Matches) -> Fault:
    candidates = matches.list_predictions(reference)
    if not candidates:
        return Fault(
            reference, "has no prediction; segment its scan, or rename its file"
        )
    return Fault(
        reference,
        "it is not certain which prediction is its own; name the prediction like the reference",
        detail=f"candidates: {', '.join(candidates)}",
    )


def _make_scanless_fault(label_map: str, matches: Matches) -> Fault:
    candidates = matches.list_references(label_map)
    if not candidates:
        return Fault(
            label_map,
            "has no scan of the same name; rename it, or add its scan",
        )
    return Fault(
        label_map,
        "it is not certain which scan it was drawn on; name it like its scan",
        detail=f"candidates: {', '.join(candidates)}",
    )


def _make_ambiguous_fault(name: str, files: _Files) -> Fault:
    listed = ", ".join(path.name for path in files)
    return Fault(
        name,
        "is there in several files; keep one of them",
        detail=listed,
    )


def _choose_files(
    predicted: _Files, expected: _Files
) -> tuple[Path, Path] | None:
    """Choose which files to compare; ``None`` if it is not clear.

    Where a result was written in several formats, that of the reference is taken.
    """
    same_ending = []
    for file in predicted:
        for reference in expected:
            if split_suffix(file.name)[1] == split_suffix(reference.name)[1]:
                same_ending.append((file, reference))
    if len(same_ending) == 1:
        return same_ending[0]
    if len(predicted) > 1 or len(expected) > 1:
        return None
    return predicted[0], expected[0]
