"""Find the cases of a data set and split them into folds; no pixel is read.

Every fault is found and named, and the cases without one can be used.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.bundle.spec import BundleSpec, DataSpec
from medseg.datasets.dicom_structures import Structures
from medseg.datasets.layouts import CaseListing, ListedCase, Selection, list_cases
from medseg.datasets.layouts.checks import faults, names, says
from medseg.datasets.mask_files import Masks
from medseg.datasets.names import abbreviate
from medseg.errors import DatasetError, Fault
from medseg.io import read_labels
from medseg.volume import Volume

GROUP_FIELDS = ("group", "patient")
"""Fields of a list that name a case's group where the bundle names no field."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Something on disk that becomes one volume.

    Attributes:
        name: Its name in results; a plain file name, different from all others beside it.
        parts: The files of each channel, or of all channels at once. A part is one file, the
            files of one DICOM series, or one folder that holds a DICOM series.
        volume: Which volume of its files it is, where a DICOM file holds several.
    """

    name: str
    parts: tuple[tuple[Path, ...], ...]
    volume: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One item to train on or to score with.

    Attributes:
        scan: Its image.
        label: Its label file.
        fold: The fold that the data set lists for it, if it does.
        group: What stays together in one fold: its patient, or the case itself.
        structures: Its labels, where DICOM objects or several masks hold them; ``label`` is the
            first of these.
    """

    scan: Scan
    label: Path
    fold: int | None
    group: str
    structures: Structures | Masks | None = None

    @property
    def name(self) -> str:
        """The name of its scan."""
        return self.scan.name

    @property
    def label_files(self) -> tuple[Path, ...]:
        """Every file that holds its labels."""
        return (self.label,) if self.structures is None else self.structures.paths

    def read_label(self, image: Volume) -> Volume:
        """Read its label map; DICOM objects and masks are put together on the image's grid.

        Raises:
            ScanError: If a file cannot be read, or structures overlap.
            GeometryError: If its place, or that of objects and masks on the image, is not certain.
        """
        return self.structures.on(image) if self.structures else read_labels(self.label)


@dataclass(frozen=True, slots=True)
class CaseList:
    """The cases of a data set.

    Attributes:
        cases: Those that can be opened, sorted by name.
        faults: What cannot be used, by case.
        warnings: What a person should know.
    """

    cases: tuple[Case, ...]
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()


def find_cases(root: Path, spec: BundleSpec) -> CaseList:
    """Find the cases that a data set lists or that lie in its folders.

    Args:
        root: The data folder, or the ``.json`` or ``.csv`` file that lists the cases.
        spec: Its channels and ``data`` say what to look for.

    Returns:
        The usable cases and every fault.

    Raises:
        DatasetError: If the data set as a whole cannot be understood, or lists nothing.
    """
    return make_cases(list_cases(root, spec.data.format, _wanted(spec)), spec)


def make_cases(found: CaseListing, spec: BundleSpec) -> CaseList:
    """Make cases of what a layout lists already, so that a large folder is searched once.

    Args:
        found: The listed cases.
        spec: Its channels and ``data`` say what a case must have.

    Returns:
        The usable cases and every fault.

    Raises:
        DatasetError: If nothing is listed, or the bundle groups by what no case says.
    """
    if not found.rows and not found.faults:
        raise DatasetError(f"{found.origin}: lists no case")
    field = _group_field(found, spec.data)
    named = names(found.rows)
    cases, wrong = [], list(found.faults)
    for row, name, what in zip(
        found.rows, named, faults(found.rows, named, len(spec.channels)), strict=True
    ):
        if spec.data.group_by and not says(row, field):
            what.append(f"has no '{spec.data.group_by}', which data.group_by says it must have")
        if what:
            wrong.extend(Fault(row.name or name, each) for each in what)
        else:
            cases.append(_case(row, name, field, spec.data))
    cases.sort(key=lambda case: case.name)
    warnings = [
        *found.warnings,
        *_unlike_the_bundle(found, spec),
        *_ungrouped(found, named, field, spec.data),
        *_doubts(cases, spec.data),
    ]
    return CaseList(tuple(cases), tuple(sorted(wrong, key=str)), tuple(warnings))


def _wanted(spec: BundleSpec) -> Selection:
    return Selection(
        channels=spec.channels,
        labels={label.name: label.value for label in spec.label_set},
    )


def assign_folds(cases: Sequence[Case], data: DataSpec) -> tuple[int, ...]:
    """Say which fold each case is in.

    Where the data set lists a fold for every case, that is it. Else the groups stand in a line
    ordered by a hash of the seed and their name, and the line is cut into ``data.folds`` parts
    of about as many cases each. So the folds do not depend on the order of the cases, and one
    more case moves few others.

    Args:
        cases: The usable cases.
        data: How they are split.

    Returns:
        The fold of each case, in the order of ``cases``.

    Raises:
        DatasetError: If there are fewer groups than folds.
    """
    listed = [case.fold for case in cases if case.fold is not None]
    if listed and len(listed) == len(cases):
        return tuple(listed)
    sizes: dict[str, int] = defaultdict(int)
    for case in cases:
        sizes[case.group] += 1
    if len(sizes) < data.folds:
        raise DatasetError(_too_few(cases, sizes, data))
    fold_of = _cut(sorted(sizes.items(), key=lambda item: _place(item[0], data.seed)), data.folds)
    return tuple(fold_of[case.group] for case in cases)


def split_cases(
    cases: Sequence[Case], data: DataSpec, fold: int | None
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Split the cases into those to train on and those to validate on.

    Args:
        cases: The usable cases.
        data: How they are split.
        fold: The fold to validate on; ``None`` trains on all and validates on none.

    Returns:
        The training cases and the validation cases, in the order of ``cases``.

    Raises:
        DatasetError: If there is no such fold, or nothing would be left to train on.
    """
    if not cases:
        raise DatasetError("there is no usable case to train on")
    if fold is None:
        return tuple(cases), ()
    folds = assign_folds(cases, data)
    there = sorted(set(folds))
    if fold not in there:
        raise DatasetError(
            f"there is no fold {fold} with usable cases; the folds are "
            f"{', '.join(str(each) for each in there)}"
        )
    if len(there) == 1:
        raise DatasetError(
            f"all {len(cases)} cases are in fold {fold}, so none is left to train on; list at "
            "least two folds, or train on all cases without validation"
        )
    pairs = list(zip(cases, folds, strict=True))
    training = tuple(case for case, its in pairs if its != fold)
    return training, tuple(case for case, its in pairs if its == fold)


def _place(group: str, seed: int) -> tuple[str, str]:
    return hashlib.sha256(f"{seed}\n{group}".encode(errors="replace")).hexdigest(), group


def _cut(line: Sequence[tuple[str, int]], folds: int) -> dict[str, int]:
    """Cut a line of groups and their sizes into folds of about equal size, none empty."""
    total = sum(size for _, size in line)
    fold_of: dict[str, int] = {}
    fold, before = -1, 0
    for position, (group, size) in enumerate(line):
        wanted = int((before + size / 2) * folds / total)
        groups_left = len(line) - position
        fold = min(max(wanted, fold, folds - groups_left), fold + 1)
        fold_of[group] = fold
        before += size
    return fold_of


def _too_few(cases: Sequence[Case], groups: dict[str, int], data: DataSpec) -> str:
    grouped = f" in {len(groups)} groups" if len(groups) < len(cases) else ""
    remedy = f"set data.folds to {len(groups)} or less, " if len(groups) > 1 else ""
    return (
        f"{len(cases)} usable {'case' if len(cases) == 1 else 'cases'}{grouped} cannot be split "
        f"into {data.folds} folds; {remedy}add cases, or train on all cases without validation"
    )


def _group_field(found: CaseListing, data: DataSpec) -> str:
    """Find the field that names the cases' group; ``""`` where none does.

    Raises:
        DatasetError: If the bundle names a field that no case has.
    """
    fields = {field for row in found.rows for field in row.fields if says(row, field)}
    if data.group_by is None:
        return next((field for field in GROUP_FIELDS if field in fields), "")
    if data.group_by.lower() in fields or not found.rows:
        return data.group_by.lower()
    there = f"its fields are {', '.join(sorted(fields)) or 'none'}"
    if not found.has_fields:
        there = "a folder has none; use data.group_pattern, or list the cases in a cases.csv"
    raise DatasetError(
        f"{found.origin}: data.group_by names the field '{data.group_by}', which no case has; "
        f"{there}"
    )


def _case(row: ListedCase, name: str, field: str, data: DataSpec) -> Case:
    parts = row.series or tuple((image,) for image in row.images)
    scan = Scan(name, parts, row.volume)
    fold = int(row.fields["fold"]) if says(row, "fold") else None
    group = str(row.fields[field]) if says(row, field) else _pattern_group(name, data)
    return Case(scan, row.label, fold, group or name, row.structures)


def _pattern_group(name: str, data: DataSpec) -> str | None:
    found = re.search(data.group_pattern, name) if data.group_pattern else None
    return found[1] if found else None


def _unlike_the_bundle(found: CaseListing, spec: BundleSpec) -> Iterator[str]:
    """Say where the data set and the bundle leave out different values."""
    ignore = found.ignore
    if ignore is None or ignore == spec.data.ignore or ignore in spec.label_set.values:
        return
    ours = "does not" if spec.data.ignore is None else f"has {spec.data.ignore} there"
    yield (
        f"{found.origin}: says that voxels of the value {ignore} were not annotated ('ignore'), "
        f"and the bundle {ours}; set data.ignore to {ignore}"
    )


def _ungrouped(
    found: CaseListing, named: Sequence[str], field: str, data: DataSpec
) -> Iterator[str]:
    """Say which cases lack what others are grouped by, unasked."""
    if not field or data.group_by or data.group_pattern:
        return
    alone = [name for row, name in zip(found.rows, named, strict=True) if not says(row, field)]
    if alone:
        yield (
            f"{len(alone)} of {len(named)} cases have no '{field}'; each of them stands for "
            f"itself: {abbreviate(alone)}"
        )


def _doubts(cases: Sequence[Case], data: DataSpec) -> Iterator[str]:
    if data.group_pattern and not data.group_by:
        alone = [case.name for case in cases if not _pattern_group(case.name, data)]
        if alone:
            yield (
                f"data.group_pattern finds nothing in {len(alone)} of {len(cases)} names; each of "
                f"these cases stands for itself: {abbreviate(alone)}"
            )
    unlisted = [case.name for case in cases if case.fold is None]
    if 0 < len(unlisted) < len(cases):
        yield (
            f"{len(unlisted)} of {len(cases)} cases have no fold in the list, so its folds are "
            f"not used; give them one: {abbreviate(unlisted)}"
        )
    folds: dict[str, set[int | None]] = defaultdict(set)
    for case in cases:
        folds[case.group].add(case.fold)
    torn = sorted(group for group, its in folds.items() if len(its) > 1)
    if torn and not unlisted:
        yield (
            f"the listed folds tear {len(torn)} groups apart, so validation is not independent "
            f"of training: {abbreviate(torn)}"
        )
