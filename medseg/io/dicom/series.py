"""Find DICOM series in a folder: by their headers, whatever the files are called."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.errors import GeometryError
from medseg.io.dicom.frames import Frame
from medseg.io.dicom.geometry import split_stacks
from medseg.io.dicom.headers import Header, read_header

NOT_DICOM = "not DICOM"
"""Why a file is skipped that is nothing to the search."""

_Key = tuple[str, str | Path]
"""A study and a series of it, or the folder of files that name none."""


@dataclass(frozen=True, slots=True)
class Series:
    """Files to read as one scan.

    Attributes:
        files: Its DICOM files, sorted by path.
        uid: Series Instance UID; empty if the files have none that is valid.
        modality: ``CT``, ``MR``, ``PT``, …
        volume_name: What tells this volume from others of the same series (``EchoTime 4.6``); empty
            if the series is one volume.
        shares_files: Whether other volumes lie in the same files, so that ``volume_name`` has to be
            named to read this one.
        study: Study Instance UID; empty if the files have none that is valid.
        description: Series Description, or empty.
        frames: Its slices, as the headers of its files state them; none that a fault hides.
    """

    files: tuple[Path, ...]
    uid: str
    modality: str
    volume_name: str = ""
    shares_files: bool = False
    study: str = ""
    description: str = ""
    frames: tuple[Frame, ...] = field(default=(), repr=False, compare=False)

    @property
    def volume(self) -> str:
        """The ``volume`` that ``read_image`` needs to be told, or nothing."""
        return self.volume_name if self.shares_files else ""


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that belongs to no series.

    Attributes:
        file: The file.
        reason: Why not.
        is_damaged: Whether it could be a part of one, if it were whole.
    """

    file: Path
    reason: str
    is_damaged: bool = False


def find_series(
    folder: Path, progress: Callable[[int], None] | None = None
) -> tuple[list[Series], list[SkippedFile]]:
    """Find every DICOM series under a folder, its files in one or many folders, or in a file.

    Args:
        folder: Searched with all its subfolders, links to folders not followed.
        progress: Called with the number of files looked at so far.

    Returns:
        As ``group_series``.
    """
    return group_series(_files_under(folder), progress)


def group_series(
    files: Iterable[Path], progress: Callable[[int], None] | None = None
) -> tuple[list[Series], list[SkippedFile]]:
    """Find the DICOM series that some files make up.

    A series that holds several volumes (echoes, time points) gives one ``Series`` each, be they
    in files of their own or in the same multi-frame files. A damaged DICOM file counts as a slice
    of the only series beside it, so that reading refuses the series instead of leaving a slice
    out.

    Args:
        files: Each is looked at, whatever it is called.
        progress: Called with the number of files looked at so far.

    Returns:
        The series in a stable order, and the files that belong to none.
    """
    headers, skipped = [], []
    for count, path in enumerate(files, start=1):
        header = read_header(path)
        if header is None:
            skipped.append(SkippedFile(path, NOT_DICOM))
        elif header.aside:
            skipped.append(SkippedFile(path, header.aside))
        else:
            headers.append(header)
        if progress is not None:
            progress(count)
    groups, lost = group_headers(headers)
    skipped += [SkippedFile(header.file, str(header.fault), is_damaged=True) for header in lost]
    series = [one for group in groups for one in _volumes(group)]
    return series, skipped


def group_headers(headers: Iterable[Header]) -> tuple[list[list[Header]], list[Header]]:
    """Group headers by series; torn ones without a known series go to the only one beside them.

    Series of different studies are different, even where a tool gave them the same UID. Files
    without a valid Series Instance UID are one series per folder.

    Returns:
        The headers of each series, sorted by path, torn ones last; and the torn ones that
        could belong to several series or to none.
    """
    groups: dict[_Key, list[Header]] = defaultdict(list)
    beside: dict[Path, set[_Key]] = defaultdict(set)
    torn = []
    for header in sorted(headers, key=lambda header: header.file):
        if header.torn:
            torn.append(header)
        else:
            key = (header.study, header.series or header.file.parent)
            groups[key].append(header)
            beside[header.file.parent].add(key)
    lost = []
    for header in torn:
        owners = {key for key in groups if key[1] == header.series} or beside[header.file.parent]
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
    files = tuple(header.file for header in headers)
    frames = tuple(frame for header in headers for frame in header.frames)
    whole = Series(
        files,
        uid,
        modality,
        study=headers[0].study,
        description=headers[0].description,
        frames=frames,
    )
    if any(header.fault for header in headers) or not frames:
        yield whole
        return
    try:
        stacks, _ = split_stacks(frames)
    except GeometryError:
        yield whole  # reading it says why
        return
    parts = [tuple(sorted({frame.file for frame in stack.frames})) for stack in stacks]
    if len(stacks) == 1:
        yield whole
        return
    shared = sum(map(len, parts)) != len(set().union(*parts))
    for stack, own in zip(stacks, parts, strict=True):
        yield replace(
            whole,
            files=files if shared else own,
            volume_name=stack.part,
            shares_files=shared,
            frames=stack.frames,
        )
