"""Find DICOM series in a folder: by their headers, whatever the files are called."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.frames import Frame
from medseg.io.dicom.geometry import Stack, split_stacks
from medseg.io.dicom.headers import Header, read_header

Progress = Callable[[int], None]
"""Called with the number of files looked at so far."""

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
        volume_name: What tells this volume from others of the same series (``EchoTime 4.6``);
            empty if the series is one volume.
        shares_files: Whether other volumes lie in the same files, so that ``volume_name`` has to
            be given to read this one.
        study: Study Instance UID; empty if the files have none that is valid.
        description: Series Description, or empty.
        frames: Its slices, as the headers of its files state them; none of files with an error.
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
        reason: Why not. Holds no name and no text of the header.
        is_damaged: Whether it could be a part of one, if it were whole.
        detail: What the header or the library that read it says, or empty.
    """

    file: Path
    reason: str
    is_damaged: bool = False
    detail: str = ""


def find_series(
    folder: Path, progress: Progress | None = None
) -> tuple[list[Series], list[SkippedFile]]:
    """Find every DICOM series under a folder, its files in one or many folders, or in a file.

    Args:
        folder: Searched with all its subfolders, links to folders not followed.
        progress: Called with the number of files looked at so far.

    Returns:
        As ``group_series``.
    """
    return group_series(_iterate_files(folder), progress)


def group_series(
    files: Iterable[Path], progress: Progress | None = None
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
    headers = []
    skipped = []
    for count, path in enumerate(files, start=1):
        header = read_header(path)
        if header is None:
            other_file = SkippedFile(path, NOT_DICOM)
            skipped.append(other_file)
        elif header.exclusion:
            excluded_file = SkippedFile(path, header.exclusion)
            skipped.append(excluded_file)
        else:
            headers.append(header)
        if progress is not None:
            progress(count)
    groups, unassigned = group_headers(headers)
    for header in unassigned:
        damaged_file = _skip_damaged(header)
        skipped.append(damaged_file)
    series: list[Series] = []
    for group in groups:
        volumes = _split_volumes(group)
        series.extend(volumes)
    return series, skipped


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
    groups: dict[_Key, list[Header]] = defaultdict(list)
    keys_of_folders: dict[Path, set[_Key]] = defaultdict(set)
    damaged = []
    sorted_headers = sorted(headers, key=_get_file)
    for header in sorted_headers:
        if header.is_damaged:
            damaged.append(header)
            continue
        folder = header.file.parent
        key = (header.study, header.series or folder)
        groups[key].append(header)
        keys_of_folders[folder].add(key)
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


def _find_keys(keys: Iterable[_Key], series: str) -> set[_Key]:
    """Return the keys of a series, one for each study that has one of this UID."""
    matches = set()
    for key in keys:
        _, series_or_folder = key
        if series_or_folder == series:
            matches.add(key)
    return matches


def _iterate_files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield Path(parent, name)


def _get_file(header: Header) -> Path:
    return header.file


def _skip_damaged(header: Header) -> SkippedFile:
    error = header.error or ScanError("damaged or truncated DICOM")
    detail = error.detail or ""
    return SkippedFile(
        header.file, error.message, is_damaged=True, detail=detail
    )


def _split_volumes(headers: Sequence[Header]) -> list[Series]:
    """Return the series that headers make up: one, or one for each volume that it holds."""
    series = _make_series(headers)
    has_error = any(header.error for header in headers)
    if has_error or not series.frames:
        return [series]
    try:
        stacks, _ = split_stacks(series.frames)
    except GeometryError:
        return [series]  # reading it says why
    if len(stacks) == 1:
        return [series]
    files_of_stacks = [_list_files(stack) for stack in stacks]
    shares_files = _have_common_files(files_of_stacks)
    volumes = []
    for stack, files in zip(stacks, files_of_stacks, strict=True):
        volume = replace(
            series,
            files=series.files if shares_files else files,
            volume_name=stack.volume_name,
            shares_files=shares_files,
            frames=stack.frames,
        )
        volumes.append(volume)
    return volumes


def _have_common_files(files_of_stacks: Iterable[tuple[Path, ...]]) -> bool:
    seen: set[Path] = set()
    for files in files_of_stacks:
        if not seen.isdisjoint(files):
            return True
        seen.update(files)
    return False


def _make_series(headers: Sequence[Header]) -> Series:
    first = headers[0]
    files = [header.file for header in headers]
    frames: list[Frame] = []
    modality = ""
    for header in headers:
        frames.extend(header.frames)
        modality = modality or header.modality
    return Series(
        files=tuple(files),
        uid=first.series,
        modality=modality,
        study=first.study,
        description=first.description,
        frames=tuple(frames),
    )


def _list_files(stack: Stack) -> tuple[Path, ...]:
    files = {frame.file for frame in stack.frames}
    return tuple(sorted(files))
