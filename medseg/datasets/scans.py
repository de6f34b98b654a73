"""Find what to segment: a file, a folder searched through, or a CSV, as scans.

Images are known by the endings of their names, DICOM by its headers. No pixel is read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg._support.files import refuse_special
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
from medseg.io import (
    Series,
    SkippedFile,
    find_series,
    group_series,
    list_readable_suffixes,
)
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
    def result_fault(self) -> Fault:
        """The same as results name it; where it is stands in the detail, which is not recorded."""
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
        warnings: What lies beside it and makes it doubtful.
    """

    name: str
    origin: str
    parts: tuple[tuple[Path, ...], ...]
    volume: str = ""
    is_hashed: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Search:
    """What one search came to so far.

    Attributes:
        channels: How many channels the bundle has.
        split_4d: How to split a DICOM series whose headers do not tell its volumes apart.
    """

    channels: int
    split_4d: str = ""
    candidates: list[_Candidate] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def leave_out(
        self, name: str, where: str, reason: str, detail: str = ""
    ) -> None:
        entry = LeftOut(name, where, reason, detail)
        self.left_out.append(entry)

    def leave_out_line(self, fault: Fault) -> None:
        """Leave out a line of a table, which is called in results as it is there."""
        stem, _ = split_suffix(fault.where)
        name = make_safe_name(_flatten(stem))
        self.leave_out(name, fault.where, fault.what, fault.detail)


def _ignore_progress(done: int, total: int) -> None:
    """Do nothing."""


def find_scans(
    path: Path,
    channels: int,
    progress: SearchProgress = _ignore_progress,
    *,
    names_from_headers: bool = False,
    split_4d: str = "",
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
        split_4d: As for ``group_series``.

    Raises:
        DatasetError: If nothing is there to segment.
    """
    search = _Search(channels, split_4d)
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
            refuse_special(path)
            raise DatasetError("there is no such file or folder", source=path)
    except ScanError as error:
        raise DatasetError(
            error.message, source=path, detail=error.detail
        ) from error
    except OSError as error:
        raise DatasetError(
            f"cannot be read: {_reason_of(error)}", source=path
        ) from error


def _name_scans(candidates: Sequence[_Candidate]) -> tuple[Scan, ...]:
    wanted = [candidate.name for candidate in candidates]
    origins = [candidate.origin for candidate in candidates]
    names = distinct_names(wanted, origins)
    scans = []
    for name, candidate in zip(names, candidates, strict=True):
        scan = Scan(name, candidate.parts, candidate.volume, candidate.warnings)
        scans.append(scan)
    return tuple(scans)


def _keep_names_distinct(
    left_out: Iterable[LeftOut], scans: Iterable[Scan]
) -> tuple[LeftOut, ...]:
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


def _search_folder(
    root: Path, search: _Search, progress: SearchProgress
) -> None:
    listing = list_files(root, skip=_reason_to_skip)
    for fault in listing.left_out:
        name = make_left_out_name(fault.where)
        search.leave_out(name, fault.where, fault.what, fault.detail)
    for folder in listing.skipped:
        note = f"{folder.where}: {folder.what}"
        search.notes.append(note)
    images: list[Path] = []
    others: list[Path] = []
    for file in listing.files:
        kind = images if has_image_suffix(file.name) else others
        kind.append(file)
    _add_images(root, images, search)

    def report(count: int) -> None:
        progress(count, len(others))

    found, skipped = group_series(others, report, split_4d=search.split_4d)
    for series in found:
        candidate = _make_series(series, root)
        search.candidates.append(candidate)
    _add_skipped(skipped, root, search)


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
    # In the order of their first files, and not of what they share.
    for key in sorted(groups, key=lambda key: groups[key][0]):
        group = groups[key]
        if _are_channels(key, group, search.channels):
            where = key.relative_to(root).as_posix()
            _add_channels(where, group, search)
        else:
            images = _make_images(group, root)
            search.candidates.extend(images)


def _add_channels(where: str, files: Sequence[Path], search: _Search) -> None:
    """Make a scan of its channels, or leave it out where they are not all there."""
    name = _flatten(where)
    numbers = [_channel_number(file) for file in files]
    expected = list(range(search.channels))
    if numbers != expected:
        reason = _describe_channels(numbers, search.channels)
        search.leave_out(make_safe_name(name), where, reason)
        return
    parts = tuple((file,) for file in files)
    candidate = _Candidate(name, where, parts)
    search.candidates.append(candidate)


def _are_channels(key: Path, group: Sequence[Path], channels: int) -> bool:
    """Tell whether files of one name are channels of one scan, whether or not all are there."""
    if key == group[0]:
        return False
    numbers = [_channel_number(file) for file in group]
    # Numbers beyond the bundle's channels, or without a 0, count pictures.
    if 0 not in numbers or max(numbers) >= channels:
        return False
    # A channel 0 alone is a scan: nnU-Net numbers files that hold all channels, too.
    return len(group) > 1


def _group_by_channel(
    files: Iterable[Path], channels: int
) -> Mapping[Path, Sequence[Path]]:
    """Group files whose names differ only in the channel's number; any other stands alone."""
    groups: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        stem, _ = split_suffix(file.name)
        base, number = split_channel(stem)
        if channels == 1 or number is None:
            groups[file].append(file)
        else:
            key = file.parent / base
            groups[key].append(file)
    return groups


def _channel_number(file: Path) -> int:
    stem, _ = split_suffix(file.name)
    _, number = split_channel(stem)
    return number or 0


def _describe_channels(numbers: Sequence[int], channels: int) -> str:
    missing = [
        f"_{number:04d}" for number in range(channels) if number not in numbers
    ]
    what = "has a channel twice"
    if missing:
        what = f"has no channel {', '.join(missing)}"
    return f"{what}; the bundle has {channels} channels"


def _make_images(files: Iterable[Path], root: Path) -> Iterator[_Candidate]:
    for file in files:
        where = file.relative_to(root).as_posix()
        yield _make_image(file, where)


def _make_image(file: Path, where: str) -> _Candidate:
    stem = split_suffix(where)[0]
    return _Candidate(_flatten(stem), where, ((file,),))


def _make_series(series: Series, root: Path) -> _Candidate:
    name = make_series_name(series, root)
    identity = identify_series(series, root)
    origin = "\n".join((identity, series.volume_name, series.study))
    parts = (series.files,)
    return _Candidate(
        name,
        origin,
        parts,
        series.volume,
        is_hashed=True,
        warnings=series.warnings,
    )


def _name_by_header(candidate: _Candidate) -> _Candidate:
    if not candidate.is_hashed:
        return candidate
    first_file = candidate.parts[0][0]
    name = read_scan_name(first_file)
    return replace(candidate, name=name) if name else candidate


def _add_skipped(
    files: Iterable[SkippedFile], root: Path, search: _Search
) -> None:
    """Report files of no series: damaged ones are left out, others are only counted."""
    counts: Counter[str] = Counter()
    for skipped in files:
        if skipped.is_damaged:
            where = skipped.file.relative_to(root).as_posix()
            name = make_left_out_name(where)
            search.leave_out(name, where, skipped.reason, skipped.detail)
        elif skipped.reason == NOT_DICOM:
            counts["not an image"] += 1
        else:
            counts[skipped.reason] += 1
    for reason, count in counts.items():
        noun = "file" if count == 1 else "files"
        search.notes.append(f"{count} other {noun}: {reason}")


# --- a table ------------------------------------------------------------------------------


def _search_table(path: Path, search: _Search) -> None:
    table = read_table(path)
    columns = table.image_columns(single=("scan", "image"))
    listed_before: set[tuple[str, ...]] = set()
    for line, cells in table.rows:
        files = tuple(cells[column] for column in columns)
        name = cells.get("name", "")
        where = name or f"line {line}"
        try:
            if files in listed_before:
                raise ScanError(
                    "is listed before; remove one of the two lines",
                    source=files[0],
                )
            listed_before.add(files)
            candidate = _make_listed(files, name, path.parent, search.channels)
            search.candidates.append(candidate)
        except MedsegError as error:
            fault = Fault.from_error(where, error)
            search.leave_out_line(fault)
        except OSError as error:
            fault = Fault(where, f"cannot be read: {_reason_of(error)}")
            search.leave_out_line(fault)


def _make_listed(
    files: Sequence[str], name: str, folder: Path, channels: int
) -> _Candidate:
    """Make a scan of one line of a table.

    Raises:
        ScanError: If it cannot be one; says why.
    """
    if not all(files):
        raise ScanError("names no file for one of its columns")
    if len(files) not in (1, channels):
        raise ScanError(
            f"lists {len(files)} files and the bundle has {channels} channels"
        )
    scans = [_make_part(folder, text) for text in files]
    parts = tuple(scan.parts[0] for scan in scans)
    origin = "\n".join([name, *files])
    if name:
        return _Candidate(name, origin, parts)
    first = scans[0]
    own_name = first.name
    base, number = split_channel(own_name)
    if len(files) > 1 and number == 0:
        own_name = base
    return _Candidate(own_name, origin, parts, is_hashed=first.is_hashed)


def _make_part(folder: Path, text: str) -> _Candidate:
    file = folder / text
    if file.is_dir():
        return _make_only_series(file)
    refuse_special(file)
    if not file.is_file():
        raise ScanError("there is no such file or folder", source=text)
    path = Path(text)
    leads_elsewhere = path.is_absolute() or ".." in path.parts
    where = file.name if leads_elsewhere else path.as_posix()
    return _make_single(file, where)


def _make_only_series(folder: Path) -> _Candidate:
    series, _ = find_series(folder)
    if len(series) != 1:
        raise ScanError(
            f"holds {len(series)} DICOM series; a folder in a table must hold one",
            source=folder,
        )
    return _make_series(series[0], folder)


# --- a file -------------------------------------------------------------------------------


def _scans_in_file(file: Path) -> list[_Candidate]:
    """Make scans of one file: one each of the volumes that a DICOM file holds.

    Raises:
        ScanError: If it is no image.
    """
    if not has_image_suffix(file.name):
        found, _ = group_series([file])
        if len(found) > 1:
            return [_make_series(series, file.parent) for series in found]
    scan = _make_single(file, file.name)
    return [scan]


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
            f"is not an image; files ending in {_list_image_suffixes()} and DICOM are read",
            source=where,
        )
    return _make_series(
        Series((file,), header.series, header.modality), file.parent
    )


def _flatten(where: str) -> str:
    return where.replace("/", "_")


def _list_image_suffixes() -> str:
    return ", ".join(
        suffix
        for suffix in list_readable_suffixes()
        if suffix not in DICOM.suffixes
    )


def _reason_of(error: OSError) -> str:
    """Say why the system refused; without the path, which the error's own text holds."""
    return error.strerror or type(error).__name__
