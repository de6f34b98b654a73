"""DICOM folders of any nesting: series, and the SEG and RTSTRUCT objects drawn on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg._support.folders import Listing, list_files
from medseg.bundle.spec import ChannelSpec
from medseg.dicom_labels.structures import (
    LabelObject,
    hash_patient,
)
from medseg.errors import DatasetError, Fault, ScanError
from medseg.io.dicom.series import Series
from medseg.io.dicom.series_search import group_series
from medseg.io.dicom.volume import is_dicom
from medseg.layouts.contract import CaseListing, ListedCase, Selection
from medseg.layouts.dicom_channels import ANY, Studies
from medseg.layouts.dicom_objects import (
    LabelledSeries,
    match_objects,
    read_objects,
)
from medseg.layouts.dicom_structures import DicomStructures, StructureFile
from medseg.layouts.label_names import (
    number_names,
    select_labels,
)
from medseg.names import (
    abbreviate,
)
from medseg.pseudonyms import (
    make_series_name,
)

_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class _DicomCase:
    """A case to be.

    Attributes:
        series: The labelled series, the first where several are.
        channels: The series of each channel.
        objects: What was drawn on them.
    """

    series: Series
    channels: tuple[Series, ...]
    objects: list[LabelObject] = field(default_factory=list)


class DicomLayout:
    """DICOM series that have labels; each is a case, grouped by patient.

    A label object belongs to the series that it names, else to the one that holds the instances
    it names, else to the only one in its frame of reference. Several objects of a series make up
    its label map together. Where a bundle has several channels, the others are series of the same
    study on the same grid (``dicom_channels``), and what was drawn on one counts for all.
    """

    def recognizes(self, root: Path) -> bool:
        """Tell whether there is any DICOM file in a folder or below it."""
        if not root.is_dir():
            return False
        files = list_files(root).files
        return any(is_dicom(file) for file in files)

    def list_cases(self, root: Path, selection: Selection) -> CaseListing:
        """List the labelled series.

        Args:
            root: The folder; each file in it and below is read once.
            selection: The channels, whose modality says which labelled series to take, and the
                labels by name; structures of other names are background. Without labels every
                structure is taken, numbered by name; without a modality that is there, the one
                of most labelled series.

        Raises:
            DatasetError: If no series has labels, or none of those wanted.
        """
        return self.list_found(root, list_files(root), selection)

    def list_found(
        self, root: Path, files: Listing, selection: Selection
    ) -> CaseListing:
        """List the labelled series of a folder whose files are listed already.

        Raises:
            DatasetError: As for ``list_cases``.
        """
        listing = CaseListing(root, has_fields=True)
        listing.faults.extend(files.left_out)
        series, skipped = group_series(files.files, split_4d=selection.split_4d)
        labelled = match_objects(
            series, read_objects(skipped, listing), listing
        )
        if not labelled:
            raise DatasetError(
                f"of {len(series)} DICOM series none has a SEG or RTSTRUCT here that refers to it",
                listing.faults,
                source=root,
            )
        chosen = _choose_modality(labelled, selection.channels, listing)
        objects = [each for entry in chosen for each in entry.objects]
        values = _choose_values(objects, selection.labels, listing)
        for name, value in values.items():
            listing.label_names.setdefault(value, name)
        if len(selection.channels) == 1:
            listing.modalities = (chosen[0].series.modality,)
        cases = _make_cases(series, chosen, selection.channels, listing)
        for case in cases:
            _add_case(case, values, listing)
        _warn_of_unused(series, labelled, cases, listing)
        return listing


# --- which series and structures ----------------------------------------------------------


def _choose_modality(
    labelled: Sequence[LabelledSeries],
    channels: Sequence[ChannelSpec],
    listing: CaseListing,
) -> list[LabelledSeries]:
    """Return the labelled series of one modality: the first channel's that is there, or most."""
    by_modality: dict[str, list[LabelledSeries]] = defaultdict(list)
    for entry in labelled:
        of_modality = by_modality[entry.series.modality]
        of_modality.append(entry)
    counts = {
        modality: len(entries) for modality, entries in by_modality.items()
    }
    present = [
        channel.modality for channel in channels if channel.modality in counts
    ]
    if present:
        taken = present[0]
    else:
        taken = _most_frequent(counts)
        _warn_of_absent_modalities(channels, taken, listing)
    names = tuple(channel.name for channel in channels)
    listing.channel_names = names or (taken or ANY,)
    is_certain = present and len(channels) == 1
    if not is_certain:
        _warn_of_other_modalities(counts, taken, listing)
    return by_modality[taken]


def _warn_of_absent_modalities(
    channels: Iterable[ChannelSpec], taken: str, listing: CaseListing
) -> None:
    wanted = {channel.modality for channel in channels} - {ANY}
    if wanted:
        listing.warnings.append(
            f"no labelled series is of {abbreviate(sorted(wanted))}, as the bundle's channels are; "
            f"those of {taken} are taken"
        )


def _warn_of_other_modalities(
    counts: Mapping[str, int], taken: str, listing: CaseListing
) -> None:
    others = []
    for modality, count in counts.items():
        if modality != taken:
            others.append(f"{count} of {modality}")
    if others:
        listing.warnings.append(
            f"the labelled series of {taken} are taken; {abbreviate(sorted(others))} are not. The "
            "modality of the bundle's first channel chooses"
        )


def _most_frequent(counts: Mapping[str, int]) -> str:
    return min(counts, key=lambda name: (-counts[name], name))


def _choose_values(
    objects: Iterable[LabelObject],
    wanted: Mapping[str, int],
    listing: CaseListing,
) -> dict[str, int]:
    """Return name → value, of the structures to take."""
    names = _list_structures(objects)
    if wanted:
        return select_labels(names, wanted, listing, "structure")
    numbers = number_names(sorted(names, key=_get_order), {})
    return {name: numbers[name] for name in names}


def _get_order(name: str) -> str:
    return name.strip().casefold()


def _list_structures(objects: Iterable[LabelObject]) -> list[str]:
    names: set[str] = set()
    for each in objects:
        names.update(each.names)
    return sorted(names)


# --- cases --------------------------------------------------------------------------------


def _make_cases(
    series: Sequence[Series],
    labelled: Sequence[LabelledSeries],
    channels: Sequence[ChannelSpec],
    listing: CaseListing,
) -> list[_DicomCase]:
    """Return each labelled series with the series of its other channels, where there are some."""
    studies = Studies(series, channels)
    cases: dict[tuple[int, ...], _DicomCase] = {}
    for entry in labelled:
        chosen: tuple[Series, ...] = (entry.series,)
        if len(channels) > 1:
            try:
                chosen = studies.find_channels(entry.series)
            except ScanError as error:
                name = make_series_name(entry.series, listing.origin)
                listing.faults.append(Fault.from_error(name, error))
                continue
        # Labels drawn on several channels of one case are labels of that case.
        key = tuple(id(channel) for channel in chosen)
        case = cases.setdefault(key, _DicomCase(entry.series, chosen))
        case.objects.extend(entry.objects)
    return list(cases.values())


def _add_case(
    case: _DicomCase, values: Mapping[str, int], listing: CaseListing
) -> None:
    """List a case, or say why it cannot be one."""
    name = make_series_name(case.series, listing.origin)
    files = _choose_structures(case.objects, values)
    try:
        _check_structures(case.objects, files)
    except ScanError as error:
        listing.faults.append(Fault.from_error(name, error))
        return
    warnings: list[str] = []
    for channel in case.channels:
        warnings.extend(channel.warnings)
    first_file = case.series.files[0]
    label_file, _ = files[0]
    listing.cases.append(
        ListedCase(
            images=tuple(channel.files[0] for channel in case.channels),
            label=label_file,
            name=name,
            fields={"patient": hash_patient(first_file) or name},
            series=tuple(channel.files for channel in case.channels),
            volume=case.series.volume,
            label_source=DicomStructures(tuple(files), values),
            warnings=tuple(warnings),
        )
    )


def _choose_structures(
    objects: Sequence[LabelObject], values: Mapping[str, int]
) -> list[StructureFile]:
    """Return which of the wanted structures each file has.

    One that is drawn in lines alone is among them, where no file has it as an area: reading it
    says that it cannot be used, while to leave it out would make it background.
    """
    areas = {name for each in objects for name in each.names}
    files = []
    for each in objects:
        lines = [name for name in each.lines if name not in areas]
        there = (*each.names, *lines)
        names = tuple(name for name in there if name in values)
        if names:
            files.append((each.file, names))
    return files


def _check_structures(
    objects: Iterable[LabelObject], files: Sequence[StructureFile]
) -> None:
    """Refuse a case without one of the labels, or with one of them in several files.

    Raises:
        ScanError: Says which.
    """
    if not files:
        there = abbreviate(_list_structures(objects), _MOST_NAMED)
        detail = f"its structures are {there or 'empty'}"
        raise ScanError("has none of the labels", detail=detail)
    holders: dict[str, list[str]] = defaultdict(list)
    for file, names in files:
        for name in names:
            holders[name].append(file.name)
    for name in sorted(holders):
        if len(holders[name]) > 1:
            raise ScanError(
                "several files have the same structure; keep one of them",
                detail=f"'{name}' in {abbreviate(holders[name])}",
            )


def _warn_of_unused(
    series: Sequence[Series],
    labelled: Iterable[LabelledSeries],
    cases: Iterable[_DicomCase],
    listing: CaseListing,
) -> None:
    used = {id(entry.series) for entry in labelled}
    for case in cases:
        used |= {id(channel) for channel in case.channels}
    unused = len(series) - len(used)
    if unused:
        listing.warnings.append(
            f"{unused} DICOM series have no SEG or RTSTRUCT and are not used"
        )
