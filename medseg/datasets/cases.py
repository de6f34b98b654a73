"""Find the cases of a data set and split them into folds; no pixel is read.

Every fault is found and named, and the cases without one can be used.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.bundle.spec import BundleSpec, DataSpec
from medseg.datasets.layouts import CaseListing, LabelSource, ListedCase, Selection, list_cases
from medseg.datasets.layouts.case_checks import find_case_faults, has_field, name_cases
from medseg.datasets.names import abbreviate, is_picture
from medseg.errors import DatasetError, Fault
from medseg.io import read_labels
from medseg.volume import Volume

GROUP_FIELDS = ("group", "patient")
"""Fields of a list that name a case's group where the bundle names no field."""

_FOLD = "fold"


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

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file or folder, of all parts."""
        return tuple(file for part in self.parts for file in part)

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture, which knows no patient space, rather than a volume."""
        return all(is_picture(file) for file in self.files)


@dataclass(frozen=True, slots=True)
class Case:
    """One item to train on or to score with.

    Attributes:
        scan: Its image.
        label: Its label file.
        fold: The fold that the data set lists for it, if it does.
        group: What stays together in one fold: its patient, or the case itself.
        label_source: Its labels, where DICOM objects or several masks hold them; ``label`` is the
            first of their files.
    """

    scan: Scan
    label: Path
    fold: int | None
    group: str
    label_source: LabelSource | None = None

    @property
    def name(self) -> str:
        """The name of its scan."""
        return self.scan.name

    @property
    def label_files(self) -> tuple[Path, ...]:
        """Every file that holds its labels."""
        return (self.label,) if self.label_source is None else self.label_source.paths

    def read_label(self, image: Volume) -> Volume:
        """Read its label map; DICOM objects and masks are put together on the image's grid.

        Raises:
            ScanError: If a file cannot be read, or structures overlap.
            GeometryError: If its place, or that of objects and masks on the image, is not certain.
        """
        if self.label_source is None:
            return read_labels(self.label)
        return self.label_source.read_label_map(image)


@dataclass(frozen=True, slots=True)
class CaseList:
    """The cases of a data set.

    Attributes:
        cases: Those that can be opened, sorted by name.
        faults: What cannot be used, by case.
        warnings: What a person should know. They are shown and never recorded, so they may name
            cases and files.
    """

    cases: tuple[Case, ...]
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()


# --- find ---------------------------------------------------------------------------------


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
    values = {label.name: label.value for label in spec.label_set}
    selection = Selection(channels=spec.channels, labels=values)
    return make_cases(list_cases(root, spec.data.format, selection), spec)


def make_cases(listing: CaseListing, spec: BundleSpec) -> CaseList:
    """Make cases of what a layout lists already, so that a large folder is searched once.

    Args:
        listing: The listed cases.
        spec: Its channels and ``data`` say what a case must have.

    Returns:
        The usable cases and every fault.

    Raises:
        DatasetError: If nothing is listed, or the bundle groups by what no case says.
    """
    if not listing.cases and not listing.faults:
        raise DatasetError("lists no case", source=listing.origin)
    field = _choose_group_field(listing, spec.data)
    names = name_cases(listing.cases)
    faults_of = find_case_faults(listing.cases, names, len(spec.channels))
    cases = []
    faults = list(listing.faults)
    for listed, name, found in zip(listing.cases, names, faults_of, strict=True):
        faults.extend(found)
        lacks_group = spec.data.group_by is not None and not has_field(listed, field)
        if lacks_group:
            what = f"has no '{spec.data.group_by}', which data.group_by says it must have"
            faults.append(Fault(listed.name or name, what))
        if not found and not lacks_group:
            cases.append(_make_case(listed, name, field, spec.data))
    cases.sort(key=lambda case: case.name)
    warnings = [
        *listing.warnings,
        *_warn_of_ignore_value(listing, spec),
        *_warn_of_missing_field(listing.cases, names, field, spec.data),
        *_warn_of_missing_groups(cases, spec.data),
        *_warn_of_folds(cases),
    ]
    return CaseList(tuple(cases), tuple(sorted(faults, key=str)), tuple(warnings))


def _choose_group_field(listing: CaseListing, data: DataSpec) -> str:
    """Return the field that names the cases' group; ``""`` where none does.

    Raises:
        DatasetError: If the bundle names a field that no case has.
    """
    fields = _fields_of(listing.cases)
    if data.group_by is None:
        return next((field for field in GROUP_FIELDS if field in fields), "")
    field = data.group_by.lower()
    if field in fields or not listing.cases:
        return field
    what = f"data.group_by names the field '{data.group_by}', which no case has"
    if not listing.has_fields:
        raise DatasetError(
            f"{what}; a folder has none, so use data.group_pattern, or list the cases in a "
            "cases.csv",
            source=listing.origin,
        )
    there = ", ".join(sorted(fields)) or "none"
    raise DatasetError(what, source=listing.origin, detail=f"its fields are {there}")


def _fields_of(cases: Iterable[ListedCase]) -> set[str]:
    fields: set[str] = set()
    for case in cases:
        fields.update(field for field in case.fields if has_field(case, field))
    return fields


def _make_case(listed: ListedCase, name: str, field: str, data: DataSpec) -> Case:
    parts = listed.series or tuple((image,) for image in listed.images)
    scan = Scan(name, parts, listed.volume)
    fold = int(listed.fields[_FOLD]) if has_field(listed, _FOLD) else None
    # A listed group wins over the pattern: somebody wrote it down for this very case.
    group = str(listed.fields[field]) if has_field(listed, field) else None
    if group is None:
        group = _match_group(name, data) or name
    return Case(scan, listed.label, fold, group, listed.label_source)


def _match_group(name: str, data: DataSpec) -> str | None:
    """Return the group that ``data.group_pattern`` finds in a case's name."""
    if not data.group_pattern:
        return None
    match = re.search(data.group_pattern, name)
    return None if match is None else match[1]


# --- warnings -----------------------------------------------------------------------------


def _warn_of_ignore_value(listing: CaseListing, spec: BundleSpec) -> Iterator[str]:
    """Say where the data set and the bundle have different ignore labels."""
    value = listing.ignore
    if value is None or value == spec.data.ignore or value in spec.label_set.values:
        return
    bundle = "has none" if spec.data.ignore is None else f"has {spec.data.ignore}"
    yield (
        f"{listing.origin}: its ignore label, the value of unlabelled voxels, is {value}, and the "
        f"bundle {bundle}; set data.ignore to {value}"
    )


def _warn_of_missing_field(
    listed: Sequence[ListedCase], names: Sequence[str], field: str, data: DataSpec
) -> Iterator[str]:
    """Say which cases lack what others are grouped by, unasked."""
    if not field or data.group_by or data.group_pattern:
        return
    alone = [name for case, name in zip(listed, names, strict=True) if not has_field(case, field)]
    if alone:
        yield (
            f"{len(alone)} of {len(names)} cases have no '{field}'; each of them stands for "
            f"itself: {abbreviate(alone)}"
        )


def _warn_of_missing_groups(cases: Sequence[Case], data: DataSpec) -> Iterator[str]:
    if not data.group_pattern or data.group_by:
        return
    alone = [case.name for case in cases if not _match_group(case.name, data)]
    if alone:
        yield (
            f"data.group_pattern finds nothing in {len(alone)} of {len(cases)} names; each of "
            f"these cases stands for itself: {abbreviate(alone)}"
        )


def _warn_of_folds(cases: Sequence[Case]) -> Iterator[str]:
    unlisted = [case.name for case in cases if case.fold is None]
    if 0 < len(unlisted) < len(cases):
        yield (
            f"{len(unlisted)} of {len(cases)} cases have no fold in the list, so its folds are "
            f"not used; give them one: {abbreviate(unlisted)}"
        )
    if unlisted:
        return
    folds: dict[str, set[int | None]] = defaultdict(set)
    for case in cases:
        folds[case.group].add(case.fold)
    torn = sorted(group for group, numbers in folds.items() if len(numbers) > 1)
    if torn:
        yield (
            f"the listed folds tear {len(torn)} groups apart, so validation is not independent "
            f"of training: {abbreviate(torn)}"
        )


# --- folds --------------------------------------------------------------------------------


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
        raise DatasetError(_describe_too_few(len(cases), len(sizes), data))
    line = sorted(sizes.items(), key=lambda item: _order_in_line(item[0], data.seed))
    fold_of = _cut(line, data.folds)
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
    numbers = sorted(set(folds))
    if fold not in numbers:
        raise DatasetError(
            f"there is no fold {fold} with usable cases; the folds are "
            f"{', '.join(str(number) for number in numbers)}"
        )
    if len(numbers) == 1:
        raise DatasetError(
            f"all {len(cases)} cases are in fold {fold}, so none is left to train on; list at "
            "least two folds, or train on all cases without validation"
        )
    training: list[Case] = []
    validation: list[Case] = []
    for case, number in zip(cases, folds, strict=True):
        part = validation if number == fold else training
        part.append(case)
    return tuple(training), tuple(validation)


def _order_in_line(group: str, seed: int) -> tuple[str, str]:
    digest = hashlib.sha256(f"{seed}\n{group}".encode(errors="replace")).hexdigest()
    return digest, group


def _cut(line: Sequence[tuple[str, int]], folds: int) -> Mapping[str, int]:
    """Cut a line of groups and their sizes into folds of about equal size, none empty."""
    total = sum(size for _, size in line)
    fold_of: dict[str, int] = {}
    fold, before = -1, 0
    for position, (group, size) in enumerate(line):
        # The fold in which the middle of the group would lie if groups could be cut.
        wanted = int((before + size / 2) * folds / total)
        groups_left = len(line) - position
        lowest = max(wanted, fold, folds - groups_left)
        fold = min(lowest, fold + 1)
        fold_of[group] = fold
        before += size
    return fold_of


def _describe_too_few(cases: int, groups: int, data: DataSpec) -> str:
    noun = "case" if cases == 1 else "cases"
    grouped = f" in {groups} groups" if groups < cases else ""
    remedy = f"set data.folds to {groups} or less, " if groups > 1 else ""
    return (
        f"{cases} usable {noun}{grouped} cannot be split into {data.folds} folds; {remedy}add "
        "cases, or train on all cases without validation"
    )
