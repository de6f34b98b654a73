"""Find DICOM series in a folder: by their headers, whatever the files are called."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from operator import itemgetter
from pathlib import Path

from medseg._support.spool import Spool
from medseg.errors import ScanError
from medseg.io.dicom.header_parts import HeaderGroup, HeaderParts
from medseg.io.dicom.headers import Header, read_header
from medseg.io.dicom.orphans import Orphans
from medseg.io.dicom.series import (
    NOT_DICOM,
    Series,
    SkippedFile,
    split_volumes,
)

Progress = Callable[[int], None]
"""Called with the number of files looked at so far."""

PlacedSeries = tuple[tuple[int, int], Series]
"""A volume, and its place: its series' number among the files, and its own in that."""

_Row = tuple[tuple[int, int], tuple[str, ...], Series]


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
    search = SeriesSearch(split_4d)
    skipped = list(search.look_at(files, progress))
    found = search.find_all()
    skipped.extend(search.list_skipped())
    return found, skipped


class SeriesSearch:
    """Finds DICOM series among files, one by one; of very many files, most headers are on the disk.

    Args:
        split_4d: As for ``group_series``.
        by_study: Whether all series of a study will be asked for together.
    """

    def __init__(self, split_4d: str = "", *, by_study: bool = False) -> None:
        self._split_4d = split_4d
        self._headers = HeaderParts(by_study=by_study)

    def look_at(
        self, files: Iterable[Path], progress: Progress | None = None
    ) -> Iterator[SkippedFile]:
        """Read the headers of files; give the files that are no DICOM.

        Args:
            files: Each is looked at, whatever it is called.
            progress: Called with the number of files looked at so far.
        """
        for count, path in enumerate(files, start=1):
            header = read_header(path)
            if header is None:
                yield SkippedFile(path, NOT_DICOM)
            else:
                self._headers.append(header)
            if progress is not None:
                progress(count)

    def find_all(self) -> list[Series]:
        """Return the series with their frames, in the order of their first files."""
        groups = [*chain.from_iterable(self._headers.list_groups())]
        groups.sort(key=lambda group: group.headers[0].file)
        found: list[Series] = []
        for group in groups:
            found += split_volumes(group.headers, self._split_4d)
        orphans = Orphans(found)
        return [orphans.warn(each) for each in found]

    def find(self) -> Iterator[Series]:
        """Give the series without their frames; files were looked at in the order of their paths.

        Raises:
            OutputError: If what was found does not fit into the folder for temporary files.
        """
        if self._headers.are_in_memory:
            yield from self.find_all()
            return
        orphans = Orphans()
        parts = []
        for groups in self._headers.list_groups():
            part: Spool[_Row] = Spool(fewest=0, weigh=_count_files)
            for place, each in self._split(groups):
                part.append(_pack(place, each))
                orphans.add(each)
            parts.append(part)
        orphans.choose()
        warned = self._warn_of_orphans(orphans)
        for row in heapq.merge(*parts, key=itemgetter(0)):
            yield _unpack(row, warned.get(row[0], ()))

    def find_studies(self) -> Iterator[list[PlacedSeries]]:
        """Give the series with their frames, those of a study together, some studies at a time.

        Each comes with its place in the order of all series, as files were looked at in the order
        of their paths.

        Raises:
            OutputError: If what was found does not fit into the folder for temporary files.
        """
        if self._headers.are_in_memory:
            found = self.find_all()
            yield [((number, 0), each) for number, each in enumerate(found)]
            return
        orphans = Orphans()
        for groups in self._headers.list_groups():
            for _, each in self._split(groups):
                orphans.add(each)
        orphans.choose()
        for groups in self._headers.list_groups():
            yield [
                (place, orphans.warn(each))
                for place, each in self._split(groups)
            ]

    def _split(self, groups: Iterable[HeaderGroup]) -> Iterator[PlacedSeries]:
        """Give each volume with its group's number and its own in that."""
        for group in groups:
            volumes = split_volumes(group.headers, self._split_4d)
            for index, volume in enumerate(volumes):
                yield (group.number, index), volume

    def _warn_of_orphans(
        self, orphans: Orphans
    ) -> dict[tuple[int, int], tuple[str, ...]]:
        """Return the warnings of volumes that orphans continue, by their places."""
        warned = {}
        for groups in self._headers.list_groups() if orphans.sizes else ():
            alike = filter(orphans.may_continue, groups)
            for place, each in self._split(alike):
                with_warning = orphans.warn(each)
                if with_warning is not each:
                    warned[place] = with_warning.warnings
        return warned

    def list_skipped(self) -> Iterator[SkippedFile]:
        """Give the DICOM files that belong to no series, once series were found."""
        for file, reason in self._headers.list_excluded():
            yield SkippedFile(file, reason)
        for header in self._headers.unassigned:
            yield _skip_damaged(header)


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


def _pack(place: tuple[int, int], series: Series) -> _Row:
    files = tuple(map(str, series.files))
    without_frames = replace(series, files=(), frames=())
    return place, files, without_frames


def _count_files(row: _Row) -> int:
    _, files, _ = row
    return len(files)


def _unpack(row: _Row, warnings: tuple[str, ...]) -> Series:
    _, files, series = row
    paths = tuple(map(Path, files))
    return replace(series, files=paths, warnings=warnings)
