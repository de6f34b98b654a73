"""Find what to segment: a file, a folder searched through, or a CSV, as scans."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg._support.files import refuse_special
from medseg._support.long_tables import TABLE_SUFFIXES
from medseg.bundle.spec import ChannelSpec
from medseg.datasets.cases import Scan
from medseg.datasets.named_scans import NamedScans
from medseg.datasets.scan_candidates import (
    Candidate,
    CandidateList,
    LeftOut,
    Search,
    list_image_suffixes,
    list_scans_in_file,
    reason_of,
)
from medseg.datasets.scan_folders import SearchProgress, search_folder
from medseg.datasets.scan_modalities import ModalityChoice
from medseg.datasets.scan_tables import search_table
from medseg.datasets.table_rows import NameRule
from medseg.errors import DatasetError, ScanError
from medseg.io.dicom.headers import read_scan_name
from medseg.names import add_tag, fold_name


@dataclass(frozen=True, slots=True)
class ScanList:
    """What to segment.

    Attributes:
        scans: Sorted by where they are; their names differ. Made one by one, when they are asked
            for.
        left_out: What seems meant to be segmented and cannot be, and why.
        skipped: Scans of modalities that were not asked for.
        passed_over: How many scans were not looked at, because others do them.
        notes: What was passed over because it is no scan: results, labels, reports, text. For
            the person who called: folders are named.
    """

    scans: NamedScans
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    skipped: tuple[LeftOut, ...] = ()
    passed_over: int = 0

    @property
    def total(self) -> int:
        """How many scans there are, those of others and those that cannot be segmented as well."""
        apart = len(self.left_out) + len(self.skipped)
        return len(self.scans) + apart + self.passed_over

    @property
    def former_names(self) -> Iterator[str]:
        """What release 0.1.0 called the scans."""
        for _, _, former in self.scans.list_names():
            yield former

    def keep_former_names(self, known: Collection[str]) -> ScanList:
        """Call scans what they were called before, where there are results of these names.

        What release 0.1.0 began goes on: nothing is done twice, and labels stay with their scans.

        Args:
            known: The names for which there are results.
        """
        return replace(self, scans=self.scans.keep_former_names(known))

    def list_renamed(self) -> set[str]:
        """Return the names of scans that had others in release 0.1.0, with those."""
        renamed: set[str] = set()
        for _, name, former in self.scans.list_names():
            if former != name:
                renamed |= {name, former}
        return renamed

    def choose(self, is_wanted: Callable[[str], bool]) -> ScanList:
        """Return what has the wanted names: of scans, and of what is no scan or not asked for."""
        return replace(
            self,
            scans=self.scans.choose(is_wanted),
            left_out=_choose(self.left_out, is_wanted),
            skipped=_choose(self.skipped, is_wanted),
        )


def _choose(
    entries: Iterable[LeftOut], is_wanted: Callable[[str], bool]
) -> tuple[LeftOut, ...]:
    return tuple(entry for entry in entries if is_wanted(entry.name))


def _ignore_progress(done: int, total: int) -> None:
    """Do nothing."""


def find_scans(
    path: Path,
    channels: int,
    progress: SearchProgress = _ignore_progress,
    *,
    names_from_headers: bool = False,
    split_4d: str = "",
    channel_specs: Sequence[ChannelSpec] = (),
    modalities: Sequence[str] = (),
    allow_empty: bool = False,
    is_wanted: NameRule | None = None,
) -> ScanList:
    """Find the scans that a path stands for.

    A folder is searched with all below it, and label maps beside its scans are left out, with a
    note. With several channels, files that differ only in nnU-Net's channel number (``_0000``,
    ``_0001``, …) or in channels' names (``_flair``, ``_t1``, …) are one scan, and so are the
    DICOM series of a study, by the rules of training. A CSV has a column ``scan`` or ``image``,
    or a column for each channel, ``image_0``, ``image_1``, … or called after it, and a ``name``
    if wanted; its paths are relative to it, and a folder in it stands for the scan it holds. A
    Parquet file may take its place.

    Names come from paths; a DICOM series is named by a hash of its UID, because its files and
    headers may name the patient. ``names_from_headers`` names it by its headers all the same.

    Args:
        path: A file, a folder, or a ``.csv`` or ``.parquet`` file.
        channels: How many channels the bundle has.
        progress: Called with how many files were looked into so far, and how many there are.
            Files whose ending says what they are need not be looked into.
        names_from_headers: Whether DICOM series are named by patient, study and series.
        split_4d: As for ``group_series``.
        channel_specs: The bundle's channels, where it is known what they are.
        modalities: Which DICOM series to segment, such as ``CT``; all unless given. Files whose
            headers state no modality are never skipped.
        allow_empty: Whether there may be nothing to segment.
        is_wanted: Tells which names are wanted. Scans of others may be left out of the list of a
            table without a look at their files.

    Raises:
        DatasetError: If nothing is there to segment, or ``modalities`` names none.
    """
    choice = ModalityChoice.parse(modalities)
    search = Search(channels, split_4d, tuple(channel_specs))
    _search_path(path, search, progress, is_wanted)
    if search.passed_over:
        allow_empty = True  # others have scans
    if not allow_empty:
        _refuse_nothing(path, search)
    candidates = search.candidates
    if names_from_headers:
        candidates = CandidateList(map(_name_by_header, candidates))
    scans = NamedScans.name(candidates)
    left_out = _keep_names_distinct(search.left_out, scans)
    found = ScanList(
        scans,
        left_out,
        tuple(search.notes),
        passed_over=search.passed_over,
    )
    found = _skip_other_modalities(found, choice, path)
    if not found.scans and not found.left_out and not allow_empty:
        raise DatasetError(
            f"none of {len(found.skipped)} scans is of the modality asked for, {choice}",
            source=path,
        )
    return found


def _refuse_nothing(path: Path, search: Search) -> None:
    if not search.candidates and not search.left_out:
        raise DatasetError(
            f"no scan was found; files ending in {list_image_suffixes()} and DICOM series are "
            "looked for",
            source=path,
            detail="; ".join(search.notes) or None,
        )


def _skip_other_modalities(
    found: ScanList, choice: ModalityChoice, root: Path
) -> ScanList:
    """Set apart the scans that were not asked for; the names of the others stay."""
    if not choice.wanted:
        return found
    candidates = found.scans.candidates
    kept = array("Q")
    skipped: list[LeftOut] = []
    for number, candidate in enumerate(candidates):
        reason = choice.find_reason_to_skip(candidate.modalities)
        if not reason:
            kept.append(number)
            continue
        scan = found.scans[number]
        where = describe_place(scan, root)
        skipped.append(LeftOut(scan.name, where, reason))
    left_out: list[LeftOut] = []
    for entry in found.left_out:
        reason = choice.find_reason_to_skip(entry.modalities)
        if reason:
            skipped.append(replace(entry, reason=reason, detail=""))
        else:
            left_out.append(entry)
    notes = (*found.notes, *choice.describe_unknown(candidates))
    return replace(
        found,
        scans=replace(found.scans, numbers=kept),
        left_out=tuple(left_out),
        skipped=tuple(skipped),
        notes=notes,
    )


def describe_place(scan: Scan, root: Path) -> str:
    """Say where a scan was found, below what was searched if it lies there."""
    first_file = scan.parts[0][0]
    if first_file.is_relative_to(root) and first_file != root:
        return first_file.relative_to(root).as_posix()
    return first_file.name


def _search_path(
    path: Path,
    search: Search,
    progress: SearchProgress,
    is_wanted: NameRule | None,
) -> None:
    """Search whatever ``path`` is.

    Raises:
        DatasetError: If it is not there, cannot be read, or is a file of no known kind.
    """
    try:
        if path.is_dir():
            search_folder(path, search, progress)
        elif path.suffix.lower() in TABLE_SUFFIXES:
            search_table(path, search, is_wanted)
        elif path.is_file():
            search.candidates.extend(list_scans_in_file(path))
        else:
            refuse_special(path)
            raise DatasetError("there is no such file or folder", source=path)
    except ScanError as error:
        raise DatasetError(
            error.message, source=path, detail=error.detail
        ) from error
    except OSError as error:
        raise DatasetError(
            f"cannot be read: {reason_of(error)}", source=path
        ) from error


def _keep_names_distinct(
    left_out: Sequence[LeftOut], scans: NamedScans
) -> tuple[LeftOut, ...]:
    """Rename what was left out where its name is taken; scans keep theirs."""
    taken = scans.find_taken([entry.name for entry in left_out])
    renamed = []
    for entry in left_out:
        name = entry.name
        if fold_name(name) in taken:
            name = add_tag(name, entry.where)
        taken.add(fold_name(name))
        renamed.append(replace(entry, name=name))
    return tuple(renamed)


def _name_by_header(candidate: Candidate) -> Candidate:
    if not candidate.is_hashed:
        return candidate
    first_file = candidate.parts[0][0]
    name = read_scan_name(first_file)
    return replace(candidate, name=name) if name else candidate
