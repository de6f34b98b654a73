"""Scans that a search came upon, before their names are certain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsIndex, overload

from medseg._support.spool import Spool
from medseg.bundle.spec import ChannelSpec
from medseg.errors import Fault, ScanError
from medseg.io import Series, group_series, list_readable_suffixes
from medseg.io.dicom.headers import read_header
from medseg.io.dicom.volume import DICOM
from medseg.io.other_kinds import describe_other_kind
from medseg.names import (
    has_image_suffix,
    make_safe_name,
    split_suffix,
)
from medseg.pseudonyms import (
    identify_series,
    make_series_name,
)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that seems meant to be segmented and cannot be.

    Attributes:
        name: What results call it: a plain file name that does not tell who the patient is,
            different from those of all scans.
        where: Where it is, for the person who called: a path relative to what was searched, or
            what the table calls it. In no result.
        reason: Why it cannot be segmented; holds no name.
        detail: File names and texts of headers that belong to the reason. In no result.
        modalities: Those that its DICOM headers state; empty for what is no DICOM.
    """

    name: str
    where: str
    reason: str
    detail: str = ""
    modalities: tuple[str, ...] = ()

    @property
    def result_fault(self) -> Fault:
        """The same as results name it; where it is stands in the detail, which is not recorded."""
        detail = f"{self.where}; {self.detail}" if self.detail else self.where
        return Fault(self.name, self.reason, detail)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A scan before its name is certain.

    Attributes:
        name: The name it should have.
        origin: Tells it from all others: its path, its UID.
        parts: Its files, by channel.
        volume: Which volume of them, where a DICOM file holds several.
        is_hashed: Whether the name is a hash, because files and headers may name the patient.
        warnings: What lies beside it and makes it doubtful.
        modalities: Those that its DICOM headers state; empty for other files.
    """

    name: str
    origin: str
    parts: tuple[tuple[Path, ...], ...]
    volume: str = ""
    is_hashed: bool = False
    warnings: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        # Paths take long to write and to read; their texts do not.
        texts = tuple(tuple(map(str, part)) for part in self.parts)
        return _restore, (
            self.name,
            self.origin,
            texts,
            self.volume,
            self.is_hashed,
            self.warnings,
            self.modalities,
        )


class CandidateList(Sequence[Candidate]):
    """Candidates in the order in which they were found; of very many, most lie on the disk."""

    def __init__(self, candidates: Iterable[Candidate] = ()) -> None:
        self._names: Spool[tuple[str, str]] = Spool()
        self._all: Spool[Candidate] = Spool(weigh=count_files)
        self.extend(candidates)

    def append(self, candidate: Candidate) -> None:
        """Add a candidate."""
        self._names.append((candidate.name, candidate.origin))
        self._all.append(candidate)

    def extend(self, candidates: Iterable[Candidate]) -> None:
        """Add candidates."""
        for candidate in candidates:
            self.append(candidate)

    def list_names(self) -> Iterator[tuple[str, str]]:
        """Give the name that each should have, and its origin; that is quicker than all of it."""
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._all)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Candidate: ...

    @overload
    def __getitem__(self, index: slice) -> list[Candidate]: ...

    def __getitem__(
        self, index: SupportsIndex | slice
    ) -> Candidate | list[Candidate]:
        return self._all[index]


def count_files(candidate: Candidate) -> int:
    """Return how many files a scan has."""
    return sum(map(len, candidate.parts))


def _restore(
    name: str, origin: str, texts: Iterable[Iterable[str]], *others: Any
) -> Candidate:
    parts = tuple(tuple(map(Path, part)) for part in texts)
    return Candidate(name, origin, parts, *others)


@dataclass(slots=True)
class Search:
    """What one search came to so far.

    Attributes:
        channels: How many channels the bundle has.
        split_4d: How to split a DICOM series whose headers do not tell its volumes apart.
        specs: The bundle's channels; empty where only their number is known.
        passed_over: How many scans were not looked at, because others do them.
    """

    channels: int
    split_4d: str = ""
    specs: tuple[ChannelSpec, ...] = ()
    candidates: CandidateList = field(default_factory=CandidateList)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    passed_over: int = 0

    @property
    def channel_names(self) -> tuple[str, ...]:
        """What the bundle calls its channels."""
        return tuple(channel.name for channel in self.specs)

    def leave_out(
        self, name: str, where: str, reason: str, detail: str = ""
    ) -> None:
        entry = LeftOut(name, where, reason, detail)
        self.left_out.append(entry)

    def leave_out_line(self, fault: Fault) -> None:
        """Leave out a line of a table, which is called in results as it is there."""
        stem, _ = split_suffix(fault.where)
        name = make_safe_name(flatten(stem))
        self.leave_out(name, fault.where, fault.what, fault.detail)


def make_image(file: Path, where: str) -> Candidate:
    stem = split_suffix(where)[0]
    return Candidate(flatten(stem), where, ((file,),))


def make_series(series: Series, root: Path) -> Candidate:
    name = make_series_name(series, root)
    identity = identify_series(series, root)
    origin = "\n".join((identity, series.volume_name, series.study))
    parts = (series.files,)
    return Candidate(
        name,
        origin,
        parts,
        series.volume,
        is_hashed=True,
        warnings=series.warnings,
        modalities=(series.modality,),
    )


def list_scans_in_file(file: Path) -> list[Candidate]:
    """Make scans of one file: one each of the volumes that a DICOM file holds.

    Raises:
        ScanError: If it is no image.
    """
    if not has_image_suffix(file.name):
        found, _ = group_series([file])
        if len(found) > 1:
            return [make_series(series, file.parent) for series in found]
    scan = make_single(file, file.name)
    return [scan]


def make_single(file: Path, where: str) -> Candidate:
    """Make a scan of one file.

    Raises:
        ScanError: If it is no image.
    """
    if has_image_suffix(file.name):
        return make_image(file, where)
    header = read_header(file)
    if header is None:
        kind = describe_other_kind(file)
        what = (
            f"is not an image that is read ({kind})"
            if kind
            else "is not an image"
        )
        raise ScanError(
            f"{what}; files ending in {list_image_suffixes()} and DICOM are read",
            source=where,
        )
    return make_series(
        Series((file,), header.series, header.modality), file.parent
    )


def flatten(where: str) -> str:
    return where.replace("/", "_")


def list_image_suffixes() -> str:
    return ", ".join(
        suffix
        for suffix in list_readable_suffixes()
        if suffix not in DICOM.suffixes
    )


def reason_of(error: OSError) -> str:
    """Say why the system refused; without the path, which the error's own text holds."""
    return error.strerror or type(error).__name__
