"""Find DICOM series in a folder: by their headers, whatever the files are called."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.frames import Frame
from medseg.io.dicom.geometry import are_parallel
from medseg.io.dicom.header_groups import (
    group_headers,
    mark_torn_slices,
    set_stub_aside,
)
from medseg.io.dicom.headers import Header, read_header
from medseg.io.dicom.stacks import (
    FEWEST_SLICES,
    Stack,
    is_regular,
    split_stacks,
)

Progress = Callable[[int], None]
"""Called with the number of files looked at so far."""

NOT_DICOM = "not DICOM"
"""Why a file is skipped that is nothing to the search."""


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
        warnings: What speaks against its being complete, though nothing in its files does. In
            plain words that name nobody.
    """

    files: tuple[Path, ...]
    uid: str
    modality: str
    volume_name: str = ""
    shares_files: bool = False
    study: str = ""
    description: str = ""
    frames: tuple[Frame, ...] = field(default=(), repr=False, compare=False)
    warnings: tuple[str, ...] = ()

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
    folder: Path,
    progress: Progress | None = None,
    *,
    split_4d: str = "",
) -> tuple[list[Series], list[SkippedFile]]:
    """Find every DICOM series under a folder, its files in one or many folders, or in a file.

    Args:
        folder: Searched with all its subfolders, links to folders not followed.
        progress: Called with the number of files looked at so far.
        split_4d: As for ``group_series``.

    Returns:
        As ``group_series``.
    """
    return group_series(_iterate_files(folder), progress, split_4d=split_4d)


def group_series(
    files: Iterable[Path],
    progress: Progress | None = None,
    *,
    split_4d: str = "",
) -> tuple[list[Series], list[SkippedFile]]:
    """Find the DICOM series that some files make up.

    A series that holds several volumes (echoes, time points) gives one ``Series`` each, be they
    in files of their own or in the same multi-frame files. A damaged DICOM file counts as a slice
    of the only series beside it, so that reading refuses the series instead of leaving a slice
    out. A series that a few slices of another one continue gets a warning: it may have lost them.

    Args:
        files: Each is looked at, whatever it is called.
        progress: Called with the number of files looked at so far.
        split_4d: ``instance-number`` splits a series whose headers do not tell its volumes apart
            by the numbers of its slices, if those make complete volumes.

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
        else:
            headers.append(header)
        if progress is not None:
            progress(count)
    images = []
    for header in mark_torn_slices(headers):
        if header.exclusion:
            excluded_file = SkippedFile(header.file, header.exclusion)
            skipped.append(excluded_file)
        else:
            images.append(header)
    groups, unassigned = group_headers(images)
    for header in unassigned:
        damaged_file = _skip_damaged(header)
        skipped.append(damaged_file)
    series: list[Series] = []
    for group in groups:
        volumes = _split_volumes(group, split_4d)
        series.extend(volumes)
    return _warn_of_orphans(series), skipped


def _iterate_files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(parent, name)


def _skip_damaged(header: Header) -> SkippedFile:
    error = header.error or ScanError("damaged or truncated DICOM")
    detail = error.detail or ""
    return SkippedFile(
        header.file, error.message, is_damaged=True, detail=detail
    )


def _split_volumes(headers: Sequence[Header], split_4d: str) -> list[Series]:
    """Return the series that headers make up: one, or one for each volume that it holds."""
    series = _make_series(headers)
    slices, stub = set_stub_aside(headers)
    has_error = any(header.error for header in slices)
    if has_error or not series.frames:
        return [series]
    try:
        stacks, _ = split_stacks(series.frames, split_4d)
    except GeometryError:
        return [series]  # reading it says why
    if len(stacks) == 1:
        return [series]
    files_of_stacks = [_list_files(stack) for stack in stacks]
    shares_files = _have_common_files(files_of_stacks)
    volumes = []
    for stack, files in zip(stacks, files_of_stacks, strict=True):
        if stub is not None:
            files = (*files, stub.file)
        volume = replace(
            series,
            files=series.files if shares_files else files,
            volume_name=stack.volume_name,
            shares_files=shares_files,
            frames=stack.frames,
        )
        volumes.append(volume)
    return volumes


def _warn_of_orphans(found: Sequence[Series]) -> list[Series]:
    """Give a warning to each series that a few slices of another one continue."""
    orphans = defaultdict(list)
    for each in found:
        if 0 < len(each.frames) < FEWEST_SLICES:
            orphans[_get_size(each)].append(each)
    warned = []
    for each in found:
        count = 0
        if len(each.frames) >= FEWEST_SLICES:
            for orphan in orphans[_get_size(each)]:
                if _continues(each, orphan):
                    count += len(orphan.frames)
        if count:
            warning = (
                f"{count} slice(s) of another series continue this one at its end, in the same "
                "place and of the same size; if they belong to it, the scan is incomplete"
            )
            each = replace(each, warnings=(*each.warnings, warning))
        warned.append(each)
    return warned


def _get_size(series: Series) -> tuple[int, int, str]:
    """Return what slices share that continue each other."""
    first = series.frames[0]
    return first.rows, first.columns, first.frame_of_reference


def _continues(series: Series, orphan: Series) -> bool:
    """Tell whether a stack is a larger regular one with the slices of another series."""
    if (series.study, series.uid) == (orphan.study, orphan.uid):
        return False
    first = series.frames[0]
    are_near = bool(first.frame_of_reference) or (
        series.files[0].parent == orphan.files[0].parent
    )
    if not are_near or not are_parallel(first, orphan.frames[0]):
        return False
    return is_regular([*series.frames, *orphan.frames])


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
