"""Find what to segment: a file, a folder searched through, or a CSV, as scans.

Images are known by the endings of their names, DICOM by its headers. No pixel is read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg._support.folders import list_files
from medseg._support.tables import read_table
from medseg.datasets.cases import Scan
from medseg.datasets.names import (
    add_tag,
    distinct_names,
    has_image_suffix,
    identify_series,
    make_left_out_name,
    make_safe_name,
    make_series_name,
    split_channel,
    split_suffix,
)
from medseg.errors import DatasetError, Fault, MedsegError, ScanError
from medseg.io import Series, SkippedFile, find_series, group_series, readable_suffixes
from medseg.io.dicom.headers import read_header, read_scan_name
from medseg.io.dicom.series import NOT_DICOM
from medseg.io.dicom.volume import DICOM

LEDGER = "ledger.jsonl"
"""The file that marks a folder of results."""

SearchProgress = Callable[[int, int], None]
"""Told how many files were looked into so far, and how many there are."""


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
    """

    name: str
    where: str
    reason: str
    detail: str = ""

    @property
    def fault(self) -> Fault:
        """The same as the person who called finds it on disk."""
        return Fault(self.where, self.reason, self.detail)

    @property
    def result_fault(self) -> Fault:
        """The same as results name it; where it is stands in the detail, which none records."""
        detail = f"{self.where}; {self.detail}" if self.detail else self.where
        return Fault(self.name, self.reason, detail)


@dataclass(frozen=True, slots=True)
class ScanList:
    """What to segment.

    Attributes:
        scans: Sorted by where they are; their names differ.
        left_out: What seems meant to be segmented and cannot be, and why.
        notes: What was passed over because it is no scan: results, labels, reports, text. For
            the person who called: folders are named.
    """

    scans: tuple[Scan, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A scan before its name is certain.

    Attributes:
        name: The name it should have.
        origin: Tells it from all others: its path, its UID.
        parts: Its files, by channel.
        volume: Which volume of them, where a DICOM file holds several.
        is_hashed: Whether the name is a hash, because files and headers may name the patient.
    """

    name: str
    origin: str
    parts: tuple[tuple[Path, ...], ...]
    volume: str = ""
    is_hashed: bool = False


@dataclass(slots=True)
class _Search:
    """What one search came to so far.

    Attributes:
        channels: How many channels the bundle has.
    """

    channels: int
    candidates: list[_Candidate] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, name: str, where: str, reason: str, detail: str = "") -> None:
        self.left_out.append(LeftOut(name, where, reason, detail))


def _ignore_progress(done: int, total: int) -> None:
    """Tell nobody."""


def find_scans(
    path: Path,
    channels: int,
    progress: SearchProgress = _ignore_progress,
    *,
    names_from_headers: bool = False,
) -> ScanList:
    """Find the scans that a path stands for.

    A folder is searched with all below it; with several channels, files that differ only in
    nnU-Net's channel number (``_0000``, ``_0001``, …) are one scan. A CSV has a column ``scan`` or
    ``image``, or ``image_0``, ``image_1``, … with one file per channel, and a ``name`` if wanted;
    its paths are relative to it, and a folder in it stands for the DICOM series it holds.

    Names come from paths; a DICOM series is named by a hash of its UID, because its files and
    headers may name the patient. ``names_from_headers`` names it by its headers all the same.

    Args:
        path: A file, a folder or a ``.csv`` file.
        channels: How many channels the bundle has.
        progress: Called with how many files were looked into so far, and how many there are.
            Files whose ending says what they are need not be looked into.
        names_from_headers: Whether DICOM series are named by patient, study and series.

    Raises:
        DatasetError: If nothing is there to segment.
    """
    search = _Search(channels)
    _search_path(path, search, progress)
    if not search.candidates and not search.left_out:
        raise DatasetError(
            f"no scan was found; files ending in {_list_image_suffixes()} and DICOM series are "
            "looked for",
            source=path,
            detail="; ".join(search.notes) or None,
        )
    candidates = search.candidates
    if names_from_headers:
        candidates = [_name_by_header(candidate) for candidate in candidates]
    scans = _name_scans(candidates)
    left_out = _keep_names_distinct(search.left_out, scans)
    return ScanList(scans, left_out, tuple(search.notes))


def _search_path(path: Path, search: _Search, progress: SearchProgress) -> None:
    """Search whatever ``path`` is.

    Raises:
        DatasetError: If it is not there, cannot be read, or is a file of no known kind.
    """
    try:
        if path.is_dir():
            _search_folder(path, search, progress)
        elif path.suffix.lower() == ".csv":
            _search_table(path, search)
        elif path.is_file():
            search.candidates.extend(_scans_in_file(path))
        else:
            raise DatasetError("there is no such file or folder", source=path)
    except ScanError as error:
        raise DatasetError(error.message, source=path, detail=error.detail) from error
    except OSError as error:
        raise DatasetError(f"cannot be read: {_reason_of(error)}", source=path) from error


def _name_scans(candidates: Sequence[_Candidate]) -> tuple[Scan, ...]:
    wanted = [candidate.name for candidate in candidates]
    origins = [candidate.origin for candidate in candidates]
    names = distinct_names(wanted, origins)
    return tuple(
        Scan(name, candidate.parts, candidate.volume)
        for name, candidate in zip(names, candidates, strict=True)
    )


def _keep_names_distinct(left_out: Iterable[LeftOut], scans: Iterable[Scan]) -> tuple[LeftOut, ...]:
    """Rename what was left out where its name is taken; scans keep theirs."""
    taken = {scan.name.casefold() for scan in scans}
    renamed = []
    for entry in left_out:
        name = entry.name
        if name.casefold() in taken:
            name = add_tag(name, entry.where)
        taken.add(name.casefold())
        renamed.append(replace(entry, name=name))
    return tuple(renamed)


# --- a folder -----------------------------------------------------------------------------


def _search_folder(root: Path, search: _Search, progress: SearchProgress) -> None:
    listing = list_files(root, skip=_reason_to_skip)
    for fault in listing.left_out:
        search.leave_out(make_left_out_name(fault.where), fault.where, fault.what)
    for skipped in listing.skipped:
        search.notes.append(f"{skipped.where}: {skipped.what}")
    images = [file for file in listing.files if has_image_suffix(file.name)]
    others = [file for file in listing.files if not has_image_suffix(file.name)]
    _add_images(root, images, search)
    series, skipped_files = group_series(others, lambda count: progress(count, len(others)))
    search.candidates.extend(_make_series(each, root) for each in series)
    _add_skipped(skipped_files, root, search)


def _reason_to_skip(folder: Path) -> str | None:
    """Say why a folder is not searched, or nothing."""
    if (folder / LEDGER).is_file():
        return "holds results of medseg, which are not segmented again"
    before, _, rest = folder.name.partition("labels")
    images = f"images{rest}"
    if not before and (folder.parent / images).is_dir():
        return f"holds the labels of {images}, not scans"
    return None


def _add_images(root: Path, files: Sequence[Path], search: _Search) -> None:
    """Make scans of image files, those that are channels of one scan together."""
    groups = _group_by_channel(files, search.channels)
    for key, group in sorted(groups.items(), key=lambda item: item[1][0]):
        numbers = [_channel_number(file) or 0 for file in group]
        # Numbers beyond the bundle's channels, or without a 0, count pictures.
        are_channels = key != group[0] and 0 in numbers and max(numbers) < search.channels
        is_whole = numbers == list(range(search.channels))
        where = key.relative_to(root).as_posix()
        if are_channels and is_whole:
            parts = tuple((file,) for file in group)
            search.candidates.append(_Candidate(_flatten(where), where, parts))
        elif are_channels and len(group) > 1:
            reason = _describe_channels(numbers, search.channels)
            search.leave_out(make_safe_name(_flatten(where)), where, reason)
        else:
            # Also a channel 0 alone: nnU-Net numbers files that hold all channels, too.
            search.candidates.extend(_make_images(group, root))


def _group_by_channel(files: Iterable[Path], channels: int) -> Mapping[Path, Sequence[Path]]:
    """Group files whose names differ only in the channel's number; any other stands alone."""
    groups: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        base, number = split_channel(split_suffix(file.name)[0])
        is_channel = channels > 1 and number is not None
        key = file.parent / base if is_channel else file
        groups[key].append(file)
    return groups


def _channel_number(file: Path) -> int | None:
    return split_channel(split_suffix(file.name)[0])[1]


def _describe_channels(numbers: Sequence[int], channels: int) -> str:
    missing = [f"_{number:04d}" for number in range(channels) if number not in numbers]
    what = f"has no channel {', '.join(missing)}" if missing else "has a channel twice"
    return f"{what}; the bundle has {channels} channels"


def _make_images(files: Iterable[Path], root: Path) -> Iterator[_Candidate]:
    for file in files:
        yield _make_image(file, file.relative_to(root).as_posix())


def _make_image(file: Path, where: str) -> _Candidate:
    stem = split_suffix(where)[0]
    return _Candidate(_flatten(stem), where, ((file,),))


def _make_series(series: Series, root: Path) -> _Candidate:
    identity = identify_series(series, root)
    origin = "\n".join((identity, series.volume_name, series.study))
    name = make_series_name(series, root)
    return _Candidate(name, origin, (series.files,), series.volume, is_hashed=True)


def _name_by_header(candidate: _Candidate) -> _Candidate:
    if not candidate.is_hashed:
        return candidate
    first_file = candidate.parts[0][0]
    return replace(candidate, name=read_scan_name(first_file) or candidate.name)


def _add_skipped(files: Iterable[SkippedFile], root: Path, search: _Search) -> None:
    """Report files of no series: damaged ones are left out, others are only counted."""
    reasons: Counter[str] = Counter()
    for skipped in files:
        if skipped.is_damaged:
            where = skipped.file.relative_to(root).as_posix()
            name = make_left_out_name(where)
            search.leave_out(name, where, skipped.reason, skipped.detail)
        else:
            is_foreign = skipped.reason == NOT_DICOM
            reasons["no image" if is_foreign else skipped.reason] += 1
    for reason, count in reasons.items():
        search.notes.append(f"{count} other file{'s' if count > 1 else ''}: {reason}")


# --- a table ------------------------------------------------------------------------------


def _search_table(path: Path, search: _Search) -> None:
    table = read_table(path)
    columns = table.image_columns(single=("scan", "image"))
    listed_before: set[tuple[str, ...]] = set()
    for line, cells in table.rows:
        files = tuple(cells[column] for column in columns)
        name = cells.get("name", "")
        label = name or f"line {line}"
        safe_name = make_safe_name(_flatten(split_suffix(label)[0]))
        try:
            if files in listed_before:
                raise ScanError("is listed before", source=files[0])
            listed_before.add(files)
            search.candidates.append(_make_listed(files, name, path.parent, search.channels))
        except MedsegError as error:
            fault = Fault.from_error(label, error)
            search.leave_out(safe_name, label, fault.what, fault.detail)
        except OSError as error:
            search.leave_out(safe_name, label, f"cannot be read: {_reason_of(error)}")


def _make_listed(files: Sequence[str], name: str, folder: Path, channels: int) -> _Candidate:
    """Make a scan of one line of a table.

    Raises:
        ScanError: If it cannot be one; says why.
    """
    if not all(files):
        raise ScanError("names no file for one of its columns")
    if len(files) not in (1, channels):
        raise ScanError(f"lists {len(files)} files and the bundle has {channels} channels")
    parts = [_make_part(folder, text) for text in files]
    wanted = parts[0].name
    base, number = split_channel(wanted)
    if len(parts) > 1 and number == 0:
        wanted = base
    origin = "\n".join([name, *files])
    is_hashed = not name and parts[0].is_hashed
    part_files = tuple(part.parts[0] for part in parts)
    return _Candidate(name or wanted, origin, part_files, is_hashed=is_hashed)


def _make_part(folder: Path, text: str) -> _Candidate:
    file = folder / text
    if file.is_dir():
        return _make_only_series(file)
    if not file.is_file():
        raise ScanError("there is no such file or folder", source=text)
    is_below = not Path(text).is_absolute() and ".." not in Path(text).parts
    return _make_single(file, Path(text).as_posix() if is_below else file.name)


def _make_only_series(folder: Path) -> _Candidate:
    series, _ = find_series(folder)
    if len(series) != 1:
        raise ScanError(
            f"holds {len(series)} DICOM series; a folder in a table must hold one", source=folder
        )
    return _make_series(series[0], folder)


# --- a file -------------------------------------------------------------------------------


def _scans_in_file(file: Path) -> list[_Candidate]:
    """Make scans of one file: one each of the volumes that a DICOM file holds.

    Raises:
        ScanError: If it is no image.
    """
    if not has_image_suffix(file.name):
        series, _ = group_series([file])
        if len(series) > 1:
            return [_make_series(each, file.parent) for each in series]
    return [_make_single(file, file.name)]


def _make_single(file: Path, where: str) -> _Candidate:
    """Make a scan of one file.

    Raises:
        ScanError: If it is no image.
    """
    if has_image_suffix(file.name):
        return _make_image(file, where)
    header = read_header(file)
    if header is None:
        raise ScanError(
            f"is no image; files ending in {_list_image_suffixes()} and DICOM are read",
            source=where,
        )
    return _make_series(Series((file,), header.series, header.modality), file.parent)


def _flatten(where: str) -> str:
    return where.replace("/", "_")


def _list_image_suffixes() -> str:
    return ", ".join(suffix for suffix in readable_suffixes() if suffix not in DICOM.suffixes)


def _reason_of(error: OSError) -> str:
    """Say why the system refused; without the path, which the error's own text holds."""
    return error.strerror or type(error).__name__
