"""Headers of DICOM files → the series they belong to; slices that are damaged are noticed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from medseg.errors import ScanError
from medseg.io.dicom.geometry import are_parallel
from medseg.io.dicom.headers import Header, name_sop_class

SeriesKey = tuple[str, str | Path]
"""A study and a series of it, or the folder of files that name none."""


def group_headers(
    headers: Iterable[Header],
) -> tuple[list[list[Header]], list[Header]]:
    """Group headers by series; damaged ones of unknown series go to the only one beside them.

    Series of different studies are different, even where a tool gave them the same UID. Files
    without a valid Series Instance UID are one series per folder.

    Returns:
        The headers of each series, sorted by path, damaged ones last; and the damaged ones that
        could belong to several series or to none.
    """
    groups: dict[SeriesKey, list[Header]] = defaultdict(list)
    keys_of_folders: dict[Path, set[SeriesKey]] = defaultdict(set)
    damaged = []
    sorted_headers = order_group(headers)
    for header in sorted_headers:
        if header.is_damaged:
            damaged.append(header)
            continue
        key = make_key(header)
        groups[key].append(header)
        keys_of_folders[header.file.parent].add(key)
    unassigned = []
    for header in damaged:
        owners = _find_keys(groups, header.series)
        if not owners:
            folder = header.file.parent
            owners = keys_of_folders[folder]
        if len(owners) == 1:
            (owner,) = owners
            groups[owner].append(header)
        else:
            unassigned.append(header)
    return list(groups.values()), unassigned


def mark_torn_slices(headers: Iterable[Header]) -> list[Header]:
    """Give an error to slices of a series whose SOP class is not that of the others.

    A file of another class that is no slice, such as a report, stays as it is.

    Returns:
        All headers, in their order.
    """
    sorted_headers = list(headers)
    torn = find_torn_slices(sorted_headers)
    return [torn.get(header.file, header) for header in sorted_headers]


def find_torn_slices(headers: Iterable[Header]) -> dict[Path, Header]:
    """Return the slices whose SOP class is not that of their series, with an error each."""
    groups: dict[SeriesKey, list[Header]] = defaultdict(list)
    for header in headers:
        if header.frames:
            groups[make_key(header)].append(header)
    torn = {}
    for group in groups.values():
        if len({header.sop_class for header in group}) < 2:
            continue
        sop_class = _find_class(group)
        for header in group:
            if _is_torn(header, group, sop_class):
                torn[header.file] = _mark_torn(header, sop_class)
    return torn


def _find_class(headers: Iterable[Header]) -> str:
    """Return the most frequent SOP class of those whose files are images of a volume."""
    counts: Counter[str] = Counter()
    for header in headers:
        if not header.exclusion:
            counts[header.sop_class] += 1
    if not counts:
        return ""
    ((sop_class, _),) = counts.most_common(1)
    return sop_class


def _is_torn(header: Header, group: Iterable[Header], sop_class: str) -> bool:
    """Tell whether a file has the geometry of the slices of a SOP class, and not their class."""
    if not sop_class or header.sop_class == sop_class:
        return False
    frame = header.frames[0]
    for other in group:
        is_image = other.sop_class == sop_class and not other.exclusion
        if is_image and are_parallel(other.frames[0], frame):
            return True
    return False


def _mark_torn(header: Header, sop_class: str) -> Header:
    own = name_sop_class(header.sop_class)
    others = name_sop_class(sop_class)
    error = ScanError(
        f"the file is a slice by its series and its geometry, but its SOP class is '{own}' and "
        f"that of the other slices '{others}'; it is damaged or does not belong here",
        source=header.file,
    )
    return replace(header, exclusion="", frames=(), error=error)


def set_stub_aside(
    headers: Sequence[Header],
) -> tuple[Sequence[Header], Header | None]:
    """Take one damaged file without a single element from a series' headers, if there is one.

    It may have been the first or the last slice, of which nothing else would tell, so whoever
    reads the series has to be warned. Several such files are slices that were not transferred.

    Returns:
        The other headers, and the one taken. Nothing is taken from several, or if none is left.
    """
    stubs = [header for header in headers if header.is_stub]
    if len(stubs) != 1 or len(headers) == 1:
        return headers, None
    others = [header for header in headers if not header.is_stub]
    return others, stubs[0]


def order_group(headers: Iterable[Header]) -> list[Header]:
    """Return headers in the order of their files."""
    return sorted(headers, key=_get_file)


def make_key(header: Header) -> SeriesKey:
    """Return what the slices of a series have in common."""
    folder = header.file.parent
    return header.study, header.series or folder


def _find_keys(keys: Iterable[SeriesKey], series: str) -> set[SeriesKey]:
    """Return the keys of a series, one for each study that has one of this UID."""
    matches = set()
    for key in keys:
        _, series_or_folder = key
        if series_or_folder == series:
            matches.add(key)
    return matches


def _get_file(header: Header) -> Path:
    return header.file
