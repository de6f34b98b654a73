"""DICOM folders of any nesting: series, and the SEG and RTSTRUCT objects drawn on them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg._support.folders import Listing
from medseg.bundle.spec import ChannelSpec
from medseg.datasets.dicom_structures import Structures
from medseg.datasets.layouts.dicom_channels import ANY, Studies
from medseg.datasets.layouts.entries import CaseListing, ListedCase, Selection
from medseg.datasets.names import abbreviate, make_series_name
from medseg.errors import DatasetError, Fault, ScanError
from medseg.io.dicom.series import NOT_DICOM, Series, SkippedFile, group_series
from medseg.io.dicom.structures import LabelObject, hash_patient, read_label_object
from medseg.io.dicom.volume import is_dicom


@dataclass(frozen=True, slots=True)
class _Found:
    """A case to be.

    Attributes:
        series: The labelled series, the first where several are.
        channels: The series of each channel.
        objects: What was drawn on them.
    """

    series: Series
    channels: tuple[Series, ...]
    objects: list[LabelObject]


def holds_dicom(listing: Listing) -> bool:
    """Tell whether there is any DICOM file among those of a folder."""
    return any(is_dicom(file) for file in listing.files)


def dicom(root: Path, listing: Listing, wanted: Selection) -> CaseListing:
    """List the DICOM series that have labels; each is a case, grouped by patient.

    A label object belongs to the series that it names, else to the one that holds the instances
    it names, else to the only one in its frame of reference. Several objects of a series make up
    its label map together. Where a bundle has several channels, the others are series of the same
    study on the same grid (``dicom_channels``), and what was drawn on one counts for all.

    Args:
        root: The folder.
        listing: The files in it and below, each of which is read once.
        wanted: The channels, whose modality says which labelled series to take, and the labels
            by name; structures of other names are background. Without labels every structure is
            taken, numbered by name; without a modality that is there, the one of most labelled
            series.

    Raises:
        DatasetError: If no series has labels, or none of those wanted.
    """
    found = CaseListing(root, has_fields=True)
    found.faults.extend(listing.left_out)
    series, skipped = group_series(listing.files)
    labelled = _matched(series, _objects(skipped, root, found), root, found)
    if not labelled:
        raise DatasetError(
            f"{root}: of {len(series)} DICOM series none has a SEG or RTSTRUCT here that refers to "
            "it",
            found.faults,
        )
    chosen = _of_one_modality(labelled, wanted.channels, found)
    values = _values([one for _, objects in chosen for one in objects], wanted.labels, found)
    for name, value in values.items():
        found.label_names.setdefault(value, name)
    used = {id(one) for one, _ in labelled}
    for case in _cases(series, chosen, wanted.channels, root, found):
        _add(found, case, values, root)
        used |= {id(one) for one in case.channels}
    bare = len(series) - len(used)
    if bare:
        found.warnings.append(f"{bare} DICOM series have no SEG or RTSTRUCT and are not used")
    return found


def _objects(
    skipped: Sequence[SkippedFile], root: Path, found: CaseListing
) -> Iterator[LabelObject]:
    for one in skipped:
        try:
            known = (
                None if one.reason == NOT_DICOM or one.is_damaged else read_label_object(one.file)
            )
            why = one.reason if one.is_damaged else ""
        except ScanError as error:
            known, why = None, str(error)
        if why:
            found.faults.append(Fault(one.file.relative_to(root).as_posix(), why))
        elif known is not None:
            yield known


def _matched(
    series: Sequence[Series], objects: Iterator[LabelObject], root: Path, found: CaseListing
) -> list[tuple[Series, list[LabelObject]]]:
    """Return the labelled series, in the order of ``series``, with their label objects."""
    instances, references = _contents(series)
    matched: dict[int, list[LabelObject]] = defaultdict(list)
    for one in objects:
        named = {n for n, its in enumerate(series) if its.uid and its.uid in one.series}
        shown = {n for uid in one.instances for n in instances.get(uid, ())}
        beside = {n for uid in one.frames_of_reference for n in references.get(uid, ())}
        owners = (named & shown) or named or shown or (set() if one.series else beside)
        if len(owners) == 1:
            matched[owners.pop()].append(one)
            continue
        what = (
            f"refers to {len(owners)} DICOM series here; a label map belongs to one"
            if owners
            else "refers to a DICOM series that is not here"
        )
        found.faults.append(Fault(one.file.relative_to(root).as_posix(), what))
    return [(series[n], matched[n]) for n in sorted(matched)]


def _contents(
    series: Sequence[Series],
) -> tuple[Mapping[str, set[int]], Mapping[str, set[int]]]:
    """Return SOP Instance UID → series, and Frame of Reference UID → series, by their places."""
    instances: dict[str, set[int]] = defaultdict(set)
    references: dict[str, set[int]] = defaultdict(set)
    for place, one in enumerate(series):
        for frame in one.frames:
            instances[frame.sop_uid].add(place)
            references[frame.frame_of_reference].add(place)
    return instances, references


def _of_one_modality(
    labelled: Sequence[tuple[Series, list[LabelObject]]],
    channels: Sequence[ChannelSpec],
    found: CaseListing,
) -> list[tuple[Series, list[LabelObject]]]:
    often = Counter(one.modality for one, _ in labelled)
    named = [channel.modality for channel in channels if channel.modality in often]
    usual = min(often, key=lambda name: (-often[name], name))
    modality = named[0] if named else usual
    others = sorted(f"{count} of {name}" for name, count in often.items() if name != modality)
    found.channel_names = tuple(channel.name for channel in channels) or (modality or ANY,)
    asked = sorted({channel.modality for channel in channels} - {ANY})
    if asked and not named:
        found.warnings.append(
            f"no labelled series is of {abbreviate(asked)}, as the bundle's channels are; those of "
            f"{modality} are taken"
        )
    if others and (len(channels) > 1 or not named):
        found.warnings.append(
            f"the labelled series of {modality} are taken; {abbreviate(others)} are not. The "
            "modality of the bundle's first channel chooses"
        )
    return [(one, objects) for one, objects in labelled if one.modality == modality]


def _cases(
    series: Sequence[Series],
    labelled: Sequence[tuple[Series, list[LabelObject]]],
    channels: Sequence[ChannelSpec],
    root: Path,
    found: CaseListing,
) -> list[_Found]:
    """Return each labelled series with the series of its other channels, where there are some."""
    if len(channels) < 2:
        return [_Found(one, (one,), objects) for one, objects in labelled]
    studies = Studies(series, channels)
    cases: dict[tuple[int, ...], _Found] = {}
    for one, objects in labelled:
        chosen = studies.channels_of(one)
        if isinstance(chosen, str):
            found.faults.append(Fault(make_series_name(one, root), chosen))
            continue
        case = cases.setdefault(tuple(map(id, chosen)), _Found(one, chosen, []))
        case.objects.extend(objects)
    return list(cases.values())


def _values(
    objects: Sequence[LabelObject], wanted: Mapping[str, int], found: CaseListing
) -> dict[str, int]:
    """Return name → value, of the structures to take."""
    there = sorted({name for one in objects for name in one.names})
    if not wanted:
        plain = sorted({_plain(name) for name in there})
        return {name: plain.index(_plain(name)) + 1 for name in there}
    known = {_plain(name): value for name, value in wanted.items()}
    values = {name: known[_plain(name)] for name in there if _plain(name) in known}
    unnamed = [name for name in there if name not in values]
    if not values:
        raise DatasetError(
            f"{found.origin}: holds no structure that the bundle names "
            f"({abbreviate(wanted)}); those there are {abbreviate(unnamed, 20)}"
        )
    if unnamed:
        found.warnings.append(
            f"structures that the bundle does not name count as background: {abbreviate(unnamed)}"
        )
    return values


def _plain(name: str) -> str:
    """Return a name as names are compared: capitals do not count."""
    return name.strip().casefold()


def _add(found: CaseListing, case: _Found, values: Mapping[str, int], root: Path) -> None:
    """Make a row of a labelled series, or say why it cannot be one."""
    name = make_series_name(case.series, root)
    taken = [(one.file, tuple(n for n in one.names if n in values)) for one in case.objects]
    taken = [(file, names) for file, names in taken if names]
    fault = _fault(case.objects, taken)
    if fault:
        found.faults.append(Fault(name, fault))
        return
    own = {each: values[each] for _, names in taken for each in names}
    found.rows.append(
        ListedCase(
            images=tuple(one.files[0] for one in case.channels),
            label=taken[0][0],
            name=name,
            fields={"patient": hash_patient(case.series.files[0]) or name},
            series=tuple(one.files for one in case.channels),
            volume=case.series.volume,
            structures=Structures(tuple(taken), own),
        )
    )


def _fault(
    objects: Sequence[LabelObject], taken: Sequence[tuple[Path, tuple[str, ...]]]
) -> str | None:
    if not taken:
        there = abbreviate(sorted({name for one in objects for name in one.names}), 20)
        return f"has none of the labels; its structures are {there or 'empty'}"
    often = Counter(name for _, names in taken for name in names)
    repeated = sorted(name for name, count in often.items() if count > 1)
    if repeated:
        files = abbreviate(file.name for file, names in taken if {*names} & {*repeated})
        return f"several files have a structure '{repeated[0]}' ({files}); keep one"
    return None
