"""Label maps whose files name their labels: segments of ``.seg.nrrd``, SEG and RTSTRUCT.

Their values mean nothing beyond their own file, so they are given those of the labels' names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medseg.datasets.label_values import BACKGROUND, LabelValues
from medseg.datasets.named_segments import (
    TRUST,
    join_segments,
    place_segments,
)
from medseg.dicom_labels.structures import read_label_object
from medseg.errors import DatasetError, ScanError
from medseg.io import read_labels
from medseg.io.dicom.volume import is_dicom
from medseg.io.seg_nrrd import read_segments
from medseg.labels import LabelSet
from medseg.layouts import LabelSource
from medseg.layouts.dataset_json import IGNORE
from medseg.layouts.dicom_structures import DicomStructures
from medseg.layouts.label_names import (
    find_known,
    normalize_label,
    number_names,
)
from medseg.names import abbreviate
from medseg.volume import Volume

_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class LabelReader:
    """Reads the label maps of one side.

    Attributes:
        values: Name → value of each label, for files that name theirs.
        trust_values: Whether the values of ``.seg.nrrd`` files count and their names do not.
    """

    values: Mapping[str, int] = field(default_factory=dict)
    trust_values: bool = False

    def read(self, file: Path, like: Volume | None = None) -> Volume:
        """Read a label map.

        Args:
            file: The file.
            like: A volume on whose grid segments and objects of DICOM are placed.

        Raises:
            ScanError: If it cannot be read, or its names are none of the labels'.
            GeometryError: If its place is not certain.
        """
        if not self.trust_values:
            segments = read_segments(file)
            if segments:
                joined = join_segments(file, segments, self.values)
                return joined if like is None else place_segments(joined, like)
        if like is not None and is_dicom(file):
            return self._read_dicom(file, like)
        return read_labels(file)

    def needs_grid(self, file: Path) -> bool:
        """Tell whether a file may hold a part of its scan's grid."""
        if is_dicom(file):
            return True
        return not self.trust_values and bool(read_segments(file))

    def _read_dicom(self, file: Path, like: Volume) -> Volume:
        structures = read_label_object(file)
        if structures is None:
            return read_labels(file)
        known = find_known(structures.names, self.values)
        if not known:
            raise ScanError(
                "none of its structures is called as one of the labels, which are "
                f"{abbreviate(self.values, _MOST_NAMED)}; rename them",
                source=file,
                detail=f"they are {abbreviate(structures.names, _MOST_NAMED)}",
            )
        files = ((file, tuple(known)),)
        return DicomStructures(files, known).read_label_map(like)


def read_label_pair(
    prediction: Path,
    reference: Path,
    readers: tuple[LabelReader, LabelReader],
    source: LabelSource | None = None,
) -> tuple[Volume, Volume]:
    """Read a prediction and its reference; segments and objects of DICOM on the other's grid.

    Args:
        prediction: Its file.
        reference: Its file.
        readers: Of predictions and of references.
        source: The reference, where it is masks, one file for each structure.

    Returns:
        Both, on the reference's grid.

    Raises:
        ScanError: If one cannot be read, or its names are none of the labels'.
        GeometryError: If they do not lie on one grid.
    """
    predictions, references = readers
    if source is not None:
        predicted = predictions.read(prediction)
        return predicted, source.read_label_map(predicted)
    is_part = references.needs_grid(reference)
    if is_part and not predictions.needs_grid(prediction):
        predicted = predictions.read(prediction)
        expected = references.read(reference, predicted)
    else:
        expected = references.read(reference)
        predicted = predictions.read(prediction, expected)
    what = "the reference and the prediction"
    return expected.reorder_to_grid(predicted, what), expected


def make_bundle_readers(
    labels: LabelSet, trust_values: bool
) -> tuple[LabelReader, LabelReader]:
    """Return the readers of predictions and references where a bundle says what labels there are.

    Predictions hold label indices, references the values of label files.
    """
    indices = {label.name: label.index for label in labels}
    values = {label.name: label.value for label in labels}
    for value, index in labels.values.items():
        if index == labels.ignore_index:
            values.setdefault(IGNORE, value)
    return (
        LabelReader(indices, trust_values),
        LabelReader(values, trust_values),
    )


def number_labels(files: Iterable[Path], stated: LabelValues) -> dict[str, int]:
    """Give the labels that files name values, where no bundle does.

    Args:
        files: The label maps of both sides.
        stated: What a ``dataset.json`` says of the values in files that name nothing.

    Returns:
        Name → value; empty where no file names its labels.

    Raises:
        DatasetError: If other files name nothing, and nothing says what their values mean.
    """
    values_of: dict[str, set[int]] = {}
    all_name_theirs = True
    for file in files:
        own = _read_values(file)
        if not own:
            all_name_theirs = False
        for name, value in own.items():
            values = values_of.setdefault(name, set())
            values.add(value)
    if not values_of:
        return {}
    known = stated.list_foreground()
    if not known and not all_name_theirs:
        known = _require_constant_values(values_of)
    ordered = sorted(values_of, key=lambda name: (name.casefold(), name))
    return number_names(ordered, known)


def _read_values(file: Path) -> dict[str, int]:
    """Return name → value of the labels that a file names; nothing where it names none."""
    try:
        segments = read_segments(file)
        values = {segment.name: segment.value for segment in segments}
        structures = None
        if is_dicom(file):
            structures = read_label_object(file)
    except ScanError:
        return {}  # reading the pair says what is wrong with it
    if structures is not None:
        numbers = range(1, len(structures.names) + 1)
        values = dict(zip(structures.names, numbers, strict=True))
    for name in list(values):
        if normalize_label(name) == BACKGROUND:
            del values[name]
    return values


def _require_constant_values(
    values_of: Mapping[str, set[int]],
) -> dict[int, str]:
    """Return value → name, where each name has one value in all files.

    Raises:
        DatasetError: If not: then nobody knows what values in files without names are.
    """
    names: dict[int, str] = {}
    for name, values in values_of.items():
        for value in values:
            names.setdefault(value, name)
    single = [len(values) == 1 for values in values_of.values()]
    if all(single) and len(names) == len(values_of):
        return names
    raise DatasetError(
        "the files of one side name their segments and give them other values from case to case, "
        "and those of the other side hold values alone; give the bundle, which says what these "
        f"mean, or {TRUST}",
        detail=f"the names are {abbreviate(sorted(values_of), _MOST_NAMED)}",
    )
