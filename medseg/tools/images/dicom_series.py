"""Find DICOM series in a folder: by their headers, whatever the files are called."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medseg.tools.images.dicom_geometry import stacks_of
from medseg.tools.images.dicom_headers import Header, read_header
from medseg.words.errors import GeometryError


@dataclass(frozen=True, slots=True)
class Series:
    """Files to read as one scan.

    Attributes:
        files: Its DICOM files, sorted by path.
        uid: Series Instance UID; empty if the files have none that is valid.
        modality: ``CT``, ``MR``, ``PT``, …
        part: What tells this volume from others of the same series (``EchoTime 4.6``); empty
            if the series is one volume.
    """

    files: tuple[Path, ...]
    uid: str
    modality: str
    part: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that belongs to no series, and why."""

    file: Path
    why: str


def find_series(
    folder: Path, progress: Callable[[int], None] | None = None
) -> tuple[list[Series], list[Skipped]]:
    """Find every DICOM series under a folder, its files in one or many folders, or in a file.

    A series whose files fall into several volumes (echoes, time points) gives one ``Series``
    each. A damaged DICOM file counts as a slice of the only series beside it, so that reading
    refuses the series instead of leaving a slice out.

    Args:
        folder: Searched with all its subfolders, links to folders not followed.
        progress: Called with the number of files looked at so far.

    Returns:
        The series in a stable order, and the files that belong to none.
    """
    headers, skipped = [], []
    for count, path in enumerate(_files_under(folder), start=1):
        header = read_header(path)
        if header is None:
            skipped.append(Skipped(path, "not DICOM"))
        elif header.aside:
            skipped.append(Skipped(path, header.aside))
        else:
            headers.append(header)
        if progress is not None:
            progress(count)
    groups, lost = grouped(headers)
    skipped += [Skipped(header.file, str(header.fault)) for header in lost]
    series = [one for group in groups for one in _volumes(group)]
    return series, skipped


def grouped(headers: Iterable[Header]) -> tuple[list[list[Header]], list[Header]]:
    """Group headers by series; torn ones without a known series go to the only one beside them.

    Files without a valid Series Instance UID are one series per folder.

    Returns:
        The headers of each series, sorted by path, torn ones last; and the torn ones that
        could belong to several series or to none.
    """
    groups: dict[str | Path, list[Header]] = defaultdict(list)
    beside: dict[Path, set[str | Path]] = defaultdict(set)
    torn = []
    for header in sorted(headers, key=lambda header: header.file):
        if header.torn:
            torn.append(header)
        else:
            key = header.series or header.file.parent
            groups[key].append(header)
            beside[header.file.parent].add(key)
    lost = []
    for header in torn:
        owners = {header.series} & set(groups) or beside[header.file.parent]
        if len(owners) == 1:
            groups[next(iter(owners))].append(header)
        else:
            lost.append(header)
    return list(groups.values()), lost


def _files_under(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield Path(parent, name)


def _volumes(headers: list[Header]) -> Iterator[Series]:
    uid = headers[0].series
    modality = next((header.modality for header in headers if header.modality), "")
    whole = Series(tuple(header.file for header in headers), uid, modality)
    frames = [frame for header in headers for frame in header.frames]
    if any(header.fault for header in headers) or not frames:
        yield whole
        return
    try:
        stacks, _ = stacks_of(frames)
    except GeometryError:
        yield whole  # reading it says why
        return
    parts = [tuple(sorted({frame.file for frame in stack.frames})) for stack in stacks]
    shared = sum(map(len, parts)) != len(set().union(*parts))
    if len(stacks) == 1 or shared:
        # One volume; or several inside the same files, which reading refuses with a reason.
        yield whole
        return
    for stack, files in zip(stacks, parts, strict=True):
        yield Series(files, uid, modality, stack.part)
