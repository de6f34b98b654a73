"""Find the cases of a data set; no pixel is read.

Every fault is found and named, and the cases without one can be used.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.bundle.spec import BundleSpec, DataSpec
from medseg.datasets.named_segments import name_segments
from medseg.datasets.stated_colours import compare_colours
from medseg.datasets.statements import (
    Contradiction,
    compare_statement,
    read_statement,
)
from medseg.errors import DatasetError, Fault
from medseg.io import read_labels
from medseg.layouts import (
    CaseListing,
    LabelSource,
    ListedCase,
    Selection,
    list_cases,
)
from medseg.layouts.case_checks import (
    find_case_faults,
    has_field,
    name_cases,
    set_aside_modalities,
)
from medseg.layouts.missing_data import require_data
from medseg.names import (
    abbreviate,
    is_picture,
    make_former_name,
    normalize_name,
)
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
        warnings: What lies beside it and makes it doubtful, though nothing in its files does.
    """

    name: str
    parts: tuple[tuple[Path, ...], ...]
    volume: str = ""
    warnings: tuple[str, ...] = ()

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
        return (
            (self.label,)
            if self.label_source is None
            else self.label_source.paths
        )

    def read_label(self, image: Volume) -> Volume:
        """Read its label map in the order of the image's voxels.

        DICOM objects and masks are put together on the image's grid.

        Raises:
            ScanError: If a file cannot be read, or structures overlap.
            GeometryError: If its place is not certain, or its voxels are not those of the image.
        """
        if self.label_source is None:
            label = read_labels(self.label)
        else:
            label = self.label_source.read_label_map(image)
        return image.reorder_to_grid(label, "the image and its label map")


@dataclass(frozen=True, slots=True)
class CaseList:
    """The cases of a data set.

    Attributes:
        cases: Those that can be opened, sorted by name.
        faults: What cannot be used, by case.
        warnings: What a person should know. They are shown and never recorded, so they may name
            cases and files.
        contradictions: What the data set says of itself and the bundle says otherwise.
    """

    cases: tuple[Case, ...]
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()


# --- find ---------------------------------------------------------------------------------


def find_cases(
    root: Path, spec: BundleSpec, *, trust_values: bool = False
) -> CaseList:
    """Find the cases that a data set lists or that lie in its folders.

    Args:
        root: The data folder, or the ``.json`` or ``.csv`` file that lists the cases.
        spec: Its channels and ``data`` say what to look for.
        trust_values: Whether the bundle counts, whatever the data set calls its values and
            channels.

    Returns:
        The usable cases, every fault, and what the data set says otherwise than the bundle.

    Raises:
        DatasetError: If the data set as a whole cannot be understood, or lists nothing.
    """
    require_data(root, spec.data.root)
    selection = make_selection(spec, trust_values)
    listing = list_cases(root, spec.data.format, selection)
    name_segments(listing, selection, ignored=spec.data.ignored)
    if trust_values:
        return make_cases(listing, spec)
    set_aside_modalities(listing, spec.channels)
    case_list = make_cases(listing, spec)
    compared = compare_statement(read_statement(root, listing), spec)
    masks = [case.label for case in listing.cases]
    colours = compare_colours(root, masks, spec.label_set)
    return replace(
        case_list,
        warnings=(*case_list.warnings, *compared.warnings),
        contradictions=(*compared.contradictions, *colours),
    )


def make_selection(spec: BundleSpec, trust_values: bool = False) -> Selection:
    """Return what a bundle says of data: its channels and labels, and where these are.

    Args:
        spec: The bundle.
        trust_values: Whether values of label files count and names in them do not.
    """
    values = {label.name: label.value for label in spec.label_set}
    return Selection(
        channels=spec.channels,
        labels=values,
        trust_values=trust_values,
        image_patterns=spec.data.images,
        label_pattern=spec.data.labels or "",
        columns=spec.data.columns,
        split_4d=spec.data.split_4d or "",
        splits=spec.data.splits or "",
    )


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
        raise DatasetError("no case is listed", source=listing.origin)
    group_field = _choose_group_field(listing, spec.data)
    names = name_cases(listing.cases)
    # Folds follow from the groups, and must be those of release 0.1.0.
    own_groups = name_cases(listing.cases, make_former_name)
    faults_of_cases = find_case_faults(listing.cases, names, len(spec.channels))
    cases: list[Case] = []
    faults = list(listing.faults)
    for listed, name, own_group, case_faults in zip(
        listing.cases, names, own_groups, faults_of_cases, strict=True
    ):
        if spec.data.group_by and not has_field(listed, group_field):
            what = f"has no '{spec.data.group_by}', which data.group_by says it must have"
            case_faults.append(Fault(listed.name or name, what))
        if case_faults:
            faults.extend(case_faults)
        else:
            group = _choose_group(listed, name, group_field, spec.data)
            case = _make_case(listed, name, group or own_group)
            cases.append(case)
    cases.sort(key=lambda case: case.name)
    faults.sort(key=str)
    warnings = [
        *listing.warnings,
        *_warn_of_ignore_value(listing, spec),
        *_warn_of_missing_field(listing, names, group_field, spec.data),
        *_warn_of_missing_groups(cases, spec.data),
        *_warn_of_folds(cases),
    ]
    return CaseList(tuple(cases), tuple(faults), tuple(warnings))


def _choose_group_field(listing: CaseListing, data: DataSpec) -> str:
    """Return the field that names the cases' group; ``""`` where none does.

    Raises:
        DatasetError: If the bundle names a field that no case has.
    """
    fields = _fields_of(listing.cases)
    if data.group_by is None:
        known = [field for field in GROUP_FIELDS if field in fields]
        return known[0] if known else ""
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
    raise DatasetError(
        what, source=listing.origin, detail=f"its fields are {there}"
    )


def _fields_of(cases: Iterable[ListedCase]) -> set[str]:
    fields: set[str] = set()
    for case in cases:
        for field in case.fields:
            if has_field(case, field):
                fields.add(field)
    return fields


def _make_case(listed: ListedCase, name: str, group: str) -> Case:
    parts = listed.series or tuple((image,) for image in listed.images)
    return Case(
        scan=Scan(name, parts, listed.volume, listed.warnings),
        label=listed.label,
        fold=_read_fold(listed),
        group=group,
        label_source=listed.label_source,
    )


def _read_fold(listed: ListedCase) -> int | None:
    if not has_field(listed, _FOLD):
        return None
    return int(listed.fields[_FOLD])


def _choose_group(
    listed: ListedCase, name: str, group_field: str, data: DataSpec
) -> str | None:
    """Return a case's group; ``None`` where nothing names one."""
    # A listed group wins over the pattern: somebody wrote it down for this very case.
    if has_field(listed, group_field):
        return normalize_name(str(listed.fields[group_field]))
    return _match_group(name, data)


def _match_group(name: str, data: DataSpec) -> str | None:
    """Return the group that ``data.group_pattern`` finds in a case's name."""
    if not data.group_pattern:
        return None
    match = re.search(data.group_pattern, name)
    return match[1] if match else None


# --- warnings -----------------------------------------------------------------------------


def _warn_of_ignore_value(
    listing: CaseListing, spec: BundleSpec
) -> Iterator[str]:
    """Say where the data set and the bundle have different ignore labels."""
    value = listing.ignore
    own = spec.data.ignored
    if value is None or value in own:
        return
    if value in spec.label_set.values:
        return
    bundle = f"has {abbreviate(map(str, own))}" if own else "has none"
    yield (
        f"{listing.origin}: its ignore label, the value of unlabelled voxels, is {value}, and the "
        f"bundle {bundle}; set data.ignore to {value}"
    )


def _warn_of_missing_field(
    listing: CaseListing, names: Sequence[str], group_field: str, data: DataSpec
) -> Iterator[str]:
    """Say which cases lack what others are grouped by, unasked."""
    if not group_field or data.group_by or data.group_pattern:
        return
    alone = []
    for case, name in zip(listing.cases, names, strict=True):
        if not has_field(case, group_field):
            alone.append(name)
    if alone:
        yield (
            f"{len(alone)} of {len(names)} cases have no '{group_field}'; each is a "
            f"group of its own: {abbreviate(alone)}"
        )


def _warn_of_missing_groups(
    cases: Sequence[Case], data: DataSpec
) -> Iterator[str]:
    if not data.group_pattern or data.group_by:
        return
    alone = [case.name for case in cases if not _match_group(case.name, data)]
    if alone:
        yield (
            f"data.group_pattern finds nothing in {len(alone)} of {len(cases)} names; each of "
            f"these cases is a group of its own: {abbreviate(alone)}"
        )


def _warn_of_folds(cases: Sequence[Case]) -> Iterator[str]:
    unlisted = [case.name for case in cases if case.fold is None]
    if not unlisted:
        yield from _warn_of_torn_groups(cases)
    elif len(unlisted) < len(cases):
        yield (
            f"{len(unlisted)} of {len(cases)} cases have no fold in the list, so its folds are "
            f"not used; give them one: {abbreviate(unlisted)}"
        )


def _warn_of_torn_groups(cases: Iterable[Case]) -> Iterator[str]:
    folds: dict[str, set[int | None]] = defaultdict(set)
    for case in cases:
        folds[case.group].add(case.fold)
    torn = [group for group in sorted(folds) if len(folds[group]) > 1]
    if torn:
        yield (
            f"the listed folds split {len(torn)} groups, so validation is not independent of "
            f"training: {abbreviate(torn)}"
        )
