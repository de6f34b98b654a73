"""DICOM series: the files that make up one scan, by their headers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.errors import GeometryError
from medseg.io.dicom.frames import Frame
from medseg.io.dicom.header_groups import (
    set_stub_aside,
)
from medseg.io.dicom.headers import Header
from medseg.io.dicom.stacks import (
    Stack,
    split_stacks,
)

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


def split_volumes(headers: Sequence[Header], split_4d: str) -> list[Series]:
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
