"""SEG and RTSTRUCT objects of a DICOM folder, and the series that they were drawn on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from medseg.dicom_labels.structures import LabelObject, read_label_object
from medseg.errors import Fault, ScanError
from medseg.io.dicom.series import NOT_DICOM, Series, SkippedFile
from medseg.layouts.contract import CaseListing

_Places = dict[str, set[int]]
"""UID → places of series in a list."""


@dataclass(frozen=True, slots=True)
class LabelledSeries:
    """A series that labels were drawn on.

    Attributes:
        series: The series.
        objects: The label objects drawn on it.
    """

    series: Series
    objects: Sequence[LabelObject]


def read_objects(
    skipped: Iterable[SkippedFile], listing: CaseListing
) -> Iterator[LabelObject]:
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


def match_objects(
    series: Sequence[Series],
    objects: Iterable[LabelObject],
    listing: CaseListing,
) -> list[LabelledSeries]:
    """Return the labelled series, in the order of ``series``, with their label objects."""
    index = _SeriesIndex(series)
    matched: dict[int, list[LabelObject]] = defaultdict(list)
    for label_object in objects:
        owners = index.find_owners(label_object)
        if len(owners) == 1:
            owner = owners.pop()
            matched[owner].append(label_object)
            continue
        what = "refers to a DICOM series that is not here"
        if owners:
            what = f"refers to {len(owners)} DICOM series here; a label map belongs to one"
        where = label_object.file.relative_to(listing.origin)
        listing.faults.append(Fault(where.as_posix(), what))
    return [
        LabelledSeries(series[place], matched[place])
        for place in sorted(matched)
    ]


class _SeriesIndex:
    """Which series hold what a label object may refer to; series by their places in a list.

    Args:
        series: The list.
    """

    def __init__(self, series: Sequence[Series]) -> None:
        self._by_uid: _Places = defaultdict(set)
        self._by_instance: _Places = defaultdict(set)
        self._by_frame_of_reference: _Places = defaultdict(set)
        for place, each in enumerate(series):
            if each.uid:
                self._by_uid[each.uid].add(place)
            for frame in each.frames:
                self._by_instance[frame.sop_uid].add(place)
                self._by_frame_of_reference[frame.frame_of_reference].add(place)

    def find_owners(self, label_object: LabelObject) -> set[int]:
        """Return the series that a label object may have been drawn on."""
        named = _look_up(self._by_uid, label_object.series)
        shown = _look_up(self._by_instance, label_object.instances)
        if named and shown:
            return (named & shown) or named
        if named or shown:
            return named or shown
        if label_object.series:
            # It does not belong to another series in the frame of reference of its own.
            return set()
        return _look_up(
            self._by_frame_of_reference, label_object.frames_of_reference
        )


def _look_up(index: _Places, uids: Iterable[str]) -> set[int]:
    places: set[int] = set()
    for uid in uids:
        if uid in index:
            places |= index[uid]
    return places
