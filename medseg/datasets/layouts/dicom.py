"""DICOM folders of any nesting: series, and the SEG and RTSTRUCT objects drawn on them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg._support.folders import list_files
from medseg.bundle.spec import ChannelSpec
from medseg.datasets.dicom_structures import DicomStructures
from medseg.datasets.layouts.contract import CaseListing, ListedCase, Selection
from medseg.datasets.layouts.dicom_channels import ANY, Studies
from medseg.datasets.layouts.label_names import normalize_name, select_labels
from medseg.datasets.names import abbreviate, make_series_name
from medseg.errors import DatasetError, Fault, ScanError
from medseg.io.dicom.series import NOT_DICOM, Series, SkippedFile, group_series
from medseg.io.dicom.structures import LabelObject, hash_patient, read_label_object
from medseg.io.dicom.volume import is_dicom

_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class _LabelledSeries:
    """A series that labels were drawn on.

    Attributes:
        series: The series.
        objects: The label objects drawn on it.
    """

    series: Series
    objects: Sequence[LabelObject]


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
        return root.is_dir() and any(is_dicom(file) for file in list_files(root).files)

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
        listing = CaseListing(root, has_fields=True)
        files = list_files(root)
        listing.faults.extend(files.left_out)
        series, skipped = group_series(files.files)
        labelled = _match_objects(series, _read_objects(skipped, listing), listing)
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
        cases = _make_cases(series, chosen, selection.channels, listing)
        for case in cases:
            _add_case(case, values, listing)
        _warn_of_unused(series, labelled, cases, listing)
        return listing


# --- label objects ------------------------------------------------------------------------


def _read_objects(skipped: Iterable[SkippedFile], listing: CaseListing) -> Iterator[LabelObject]:
    """Yield the label objects among files of no series; damaged files become faults."""
    for file in skipped:
        where = file.file.relative_to(listing.origin).as_posix()
        if file.is_damaged:
            listing.faults.append(Fault(where, file.reason, file.detail))
            continue
        if file.reason == NOT_DICOM:
            continue
        try:
            label_object = read_label_object(file.file)
        except ScanError as error:
            listing.faults.append(Fault.from_error(where, error))
            continue
        if label_object is not None:
            yield label_object


def _match_objects(
    series: Sequence[Series], objects: Iterable[LabelObject], listing: CaseListing
) -> list[_LabelledSeries]:
    """Return the labelled series, in the order of ``series``, with their label objects."""
    index = _SeriesIndex.of(series)
    matched: dict[int, list[LabelObject]] = defaultdict(list)
    for label_object in objects:
        owners = index.find_owners(label_object)
        if len(owners) == 1:
            matched[owners.pop()].append(label_object)
            continue
        what = "refers to a DICOM series that is not here"
        if owners:
            what = f"refers to {len(owners)} DICOM series here; a label map belongs to one"
        where = label_object.file.relative_to(listing.origin).as_posix()
        listing.faults.append(Fault(where, what))
    return [_LabelledSeries(series[place], matched[place]) for place in sorted(matched)]


@dataclass(frozen=True, slots=True)
class _SeriesIndex:
    """Which series hold what a label object may refer to; series by their places in a list.

    Attributes:
        by_uid: Series Instance UID → series.
        by_instance: SOP Instance UID → series.
        by_frame_of_reference: Frame of Reference UID → series.
    """

    by_uid: Mapping[str, set[int]]
    by_instance: Mapping[str, set[int]]
    by_frame_of_reference: Mapping[str, set[int]]

    @classmethod
    def of(cls, series: Sequence[Series]) -> _SeriesIndex:
        uids: dict[str, set[int]] = defaultdict(set)
        instances: dict[str, set[int]] = defaultdict(set)
        frames_of_reference: dict[str, set[int]] = defaultdict(set)
        for place, each in enumerate(series):
            if each.uid:
                uids[each.uid].add(place)
            for frame in each.frames:
                instances[frame.sop_uid].add(place)
                frames_of_reference[frame.frame_of_reference].add(place)
        return cls(uids, instances, frames_of_reference)

    def find_owners(self, label_object: LabelObject) -> set[int]:
        """Return the series that a label object may have been drawn on."""
        named = _look_up(self.by_uid, label_object.series)
        shown = _look_up(self.by_instance, label_object.instances)
        if named and shown:
            return (named & shown) or named
        if named or shown or label_object.series:
            # An object that names a series does not belong to another in its frame of reference.
            return named or shown
        return _look_up(self.by_frame_of_reference, label_object.frames_of_reference)


def _look_up(index: Mapping[str, set[int]], uids: Iterable[str]) -> set[int]:
    places: set[int] = set()
    for uid in uids:
        places |= index.get(uid, set())
    return places


# --- which series and structures ----------------------------------------------------------


def _choose_modality(
    labelled: Sequence[_LabelledSeries], channels: Sequence[ChannelSpec], listing: CaseListing
) -> list[_LabelledSeries]:
    """Return the labelled series of one modality: the first channel's that is there, or most."""
    counts = Counter(entry.series.modality for entry in labelled)
    wanted = [channel.modality for channel in channels if channel.modality in counts]
    modality = wanted[0] if wanted else _most_frequent(counts)
    listing.channel_names = tuple(channel.name for channel in channels) or (modality or ANY,)
    asked = sorted({channel.modality for channel in channels} - {ANY})
    if asked and not wanted:
        listing.warnings.append(
            f"no labelled series is of {abbreviate(asked)}, as the bundle's channels are; those of "
            f"{modality} are taken"
        )
    others = sorted(f"{count} of {name}" for name, count in counts.items() if name != modality)
    if others and (len(channels) > 1 or not wanted):
        listing.warnings.append(
            f"the labelled series of {modality} are taken; {abbreviate(others)} are not. The "
            "modality of the bundle's first channel chooses"
        )
    return [entry for entry in labelled if entry.series.modality == modality]


def _most_frequent(counts: Counter[str]) -> str:
    return min(counts, key=lambda name: (-counts[name], name))


def _choose_values(
    objects: Iterable[LabelObject], wanted: Mapping[str, int], listing: CaseListing
) -> dict[str, int]:
    """Return name → value, of the structures to take."""
    names = sorted({name for each in objects for name in each.names})
    if wanted:
        return select_labels(names, wanted, listing, "structure")
    plain = sorted({normalize_name(name) for name in names})
    numbers = {name: number for number, name in enumerate(plain, start=1)}
    return {name: numbers[normalize_name(name)] for name in names}


# --- cases --------------------------------------------------------------------------------


def _make_cases(
    series: Sequence[Series],
    labelled: Sequence[_LabelledSeries],
    channels: Sequence[ChannelSpec],
    listing: CaseListing,
) -> list[_DicomCase]:
    """Return each labelled series with the series of its other channels, where there are some."""
    if len(channels) < 2:
        return [
            _DicomCase(entry.series, (entry.series,), list(entry.objects)) for entry in labelled
        ]
    studies = Studies(series, channels)
    cases: dict[tuple[int, ...], _DicomCase] = {}
    for entry in labelled:
        try:
            chosen = studies.find_channels(entry.series)
        except ScanError as error:
            name = make_series_name(entry.series, listing.origin)
            listing.faults.append(Fault.from_error(name, error))
            continue
        # Labels drawn on several channels of one case are labels of that case.
        key = tuple(id(each) for each in chosen)
        case = cases.setdefault(key, _DicomCase(entry.series, chosen))
        case.objects.extend(entry.objects)
    return list(cases.values())


def _add_case(case: _DicomCase, values: Mapping[str, int], listing: CaseListing) -> None:
    """List a case, or say why it cannot be one."""
    name = make_series_name(case.series, listing.origin)
    files = []
    for each in case.objects:
        names = tuple(structure for structure in each.names if structure in values)
        if names:
            files.append((each.file, names))
    try:
        _check_structures(case.objects, files)
    except ScanError as error:
        listing.faults.append(Fault.from_error(name, error))
        return
    taken = {structure: values[structure] for _, names in files for structure in names}
    listing.cases.append(
        ListedCase(
            images=tuple(channel.files[0] for channel in case.channels),
            label=files[0][0],
            name=name,
            fields={"patient": hash_patient(case.series.files[0]) or name},
            series=tuple(channel.files for channel in case.channels),
            volume=case.series.volume,
            label_source=DicomStructures(tuple(files), taken),
        )
    )


def _check_structures(
    objects: Iterable[LabelObject], files: Sequence[tuple[Path, tuple[str, ...]]]
) -> None:
    """Refuse a case without one of the labels, or with one of them in several files.

    Raises:
        ScanError: Says which.
    """
    if not files:
        there = sorted({name for each in objects for name in each.names})
        raise ScanError(
            "has none of the labels",
            detail=f"its structures are {abbreviate(there, _MOST_NAMED) or 'empty'}",
        )
    counts = Counter(name for _, names in files for name in names)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        holders = [file.name for file, names in files if not set(names).isdisjoint(repeated)]
        raise ScanError(
            "several files have the same structure; keep one of them",
            detail=f"'{repeated[0]}' in {abbreviate(holders)}",
        )


def _warn_of_unused(
    series: Sequence[Series],
    labelled: Iterable[_LabelledSeries],
    cases: Iterable[_DicomCase],
    listing: CaseListing,
) -> None:
    used = {id(entry.series) for entry in labelled}
    for case in cases:
        used |= {id(channel) for channel in case.channels}
    unused = len(series) - len(used)
    if unused:
        listing.warnings.append(f"{unused} DICOM series have no SEG or RTSTRUCT and are not used")
