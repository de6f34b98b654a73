"""Find what to segment: a file, a folder searched through, or a CSV, as scans.

Images are known by the endings of their names, DICOM by its headers. No pixel is read.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg._support.folders import list_files
from medseg._support.tables import read_table
from medseg.datasets.cases import Scan
from medseg.datasets.names import distinct_names, split_channel, split_suffix
from medseg.errors import DatasetError, Fault
from medseg.io import FORMATS, Series, SkippedFile, find_series, group_series
from medseg.io.dicom.headers import read_header, read_scan_name
from medseg.io.dicom.series import NOT_DICOM
from medseg.io.dicom.volume import DICOM

LEDGER = "ledger.jsonl"
"""The file that marks a folder of results."""

Looked = Callable[[int, int], None]
"""Told how many files were looked into so far, and how many there are."""

Parts = tuple[tuple[Path, ...], ...]


@dataclass(frozen=True, slots=True)
class ScanList:
    """What to segment.

    Attributes:
        scans: Sorted by where they are; their names differ.
        left_out: What seems meant to be segmented and cannot be, and why.
        notes: What was passed over because it is no scan: results, labels, reports, text.
    """

    scans: tuple[Scan, ...]
    left_out: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
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
    parts: Parts
    volume: str = ""
    is_hashed: bool = False


@dataclass(slots=True)
class _Search:
    """What one search has found so far."""

    found: list[_Found] = field(default_factory=list)
    left_out: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _unheard(done: int, total: int) -> None:
    """Tell nobody."""


def find_scans(
    path: Path,
    channels: int,
    progress: Looked = _unheard,
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
    search = _Search()
    try:
        if path.is_dir():
            _search_folder(path, channels, search, progress)
        elif path.suffix.lower() == ".csv":
            _search_table(path, channels, search)
        elif path.is_file():
            search.found.extend(_in_file(path))
        else:
            raise DatasetError(f"{path}: there is no such file or folder")
    except ValueError as error:
        raise DatasetError(str(error)) from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not search.found and not search.left_out:
        raise DatasetError(
            f"{path}: no scan was found. Files ending in {', '.join(_endings())} and DICOM series "
            f"are looked for{'; '.join(['', *search.notes])}"
        )
    if names_from_headers:
        search.found = [_named_by_header(found) for found in search.found]
    names = distinct_names(
        [found.name for found in search.found], [found.origin for found in search.found]
    )
    scans = [
        Scan(name, found.parts, found.volume)
        for name, found in zip(names, search.found, strict=True)
    ]
    return ScanList(tuple(scans), tuple(search.left_out), tuple(search.notes))


def _search_folder(root: Path, channels: int, search: _Search, progress: Looked) -> None:
    listing = list_files(root, skip=_why_not_meant)
    search.left_out.extend(listing.left_out)
    search.notes.extend(f"{skipped.where}: {skipped.what}" for skipped in listing.skipped)
    images = [file for file in listing.files if _is_image(file)]
    search.found.extend(_images(root, images, channels, search))
    known = set(images)
    others = [file for file in listing.files if file not in known]
    series, skipped = group_series(others, lambda count: progress(count, len(others)))
    search.found.extend(_series(one, root) for one in series)
    _pass_over(skipped, root, search)


def _why_not_meant(folder: Path) -> str | None:
    if (folder / LEDGER).is_file():
        return "holds results of medseg, which are not segmented again"
    kind, _, rest = folder.name.partition("labels")
    if not kind and (folder.parent / f"images{rest}").is_dir():
        return f"holds the labels of images{rest}, not scans"
    return None


def _images(root: Path, files: Sequence[Path], channels: int, search: _Search) -> Iterator[_Found]:
    """Make scans of image files, those that are channels of one scan together."""
    groups: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        base, number = split_channel(split_suffix(file.name)[0])
        is_channel = channels > 1 and number is not None
        groups[file.parent / base if is_channel else file].append(file)
    for key, group in sorted(groups.items(), key=lambda item: item[1][0]):
        numbers = [split_channel(split_suffix(file.name)[0])[1] or 0 for file in group]
        where = key.relative_to(root).as_posix()
        if key == group[0] or max(numbers) >= channels or 0 not in numbers:
            # Higher numbers count pictures, not channels.
            yield from (_single(file, file.relative_to(root).as_posix()) for file in group)
        elif numbers == list(range(channels)):
            yield _Found(_flat(where), where, tuple((file,) for file in group))
        elif len(group) == 1:
            # nnU-Net numbers pictures, too, which hold all channels in one file.
            yield _single(group[0], group[0].relative_to(root).as_posix())
        else:
            missing = [f"_{n:04d}" for n in range(channels) if n not in numbers]
            what = f"has no channel {', '.join(missing)}" if missing else "has a channel twice"
            search.left_out.append(Fault(where, f"{what}; the bundle has {channels} channels"))


def _series(series: Series, root: Path) -> _Found:
    told_by = series.uid or series.files[0].relative_to(root).as_posix()
    digest = hashlib.sha256(told_by.encode(errors="replace")).hexdigest()
    origin = "\n".join((told_by, series.volume_name, series.study))
    return _Found(f"series-{digest[:10]}", origin, (series.files,), series.volume, is_hashed=True)


def _named_by_header(found: _Found) -> _Found:
    if not found.is_hashed:
        return found
    return replace(found, name=read_scan_name(found.parts[0][0]) or found.name)


def _pass_over(skipped: Iterable[SkippedFile], root: Path, search: _Search) -> None:
    """Report files of no series: damaged ones are left out, others are none of our business."""
    reasons: Counter[str] = Counter()
    for one in skipped:
        if not one.is_damaged:
            reasons["no image" if one.reason == NOT_DICOM else one.reason] += 1
        else:
            search.left_out.append(Fault(one.file.relative_to(root).as_posix(), one.reason))
    search.notes.extend(
        f"{count} other file{'s' if count > 1 else ''}: {why}" for why, count in reasons.items()
    )


def _search_table(path: Path, channels: int, search: _Search) -> None:
    table = read_table(path)
    columns = table.image_columns(single=("scan", "image"))
    seen: set[tuple[str, ...]] = set()
    for line, cells in table.rows:
        listed = tuple(cells[column] for column in columns)
        name = cells.get("name", "")
        try:
            if listed in seen:
                raise ValueError(f"{listed[0]} is listed before")
            seen.add(listed)
            search.found.append(_listed(listed, name, path.parent, channels))
        except (ValueError, OSError) as error:
            search.left_out.append(Fault(name or f"line {line}", str(error)))


def _listed(listed: Sequence[str], name: str, home: Path, channels: int) -> _Found:
    """Make a scan of one line of a table.

    Raises:
        ValueError: If it cannot be one; says why.
    """
    if not all(listed):
        raise ValueError("names no file for one of its columns")
    if len(listed) not in (1, channels):
        raise ValueError(f"lists {len(listed)} files and the bundle has {channels} channels")
    parts = [_part(home, text) for text in listed]
    wanted = parts[0].name
    if len(parts) > 1 and split_channel(wanted)[1] == 0:
        wanted = split_channel(wanted)[0]
    files = tuple(part.parts[0] for part in parts)
    origin = "\n".join([name, *listed])
    return _Found(name or wanted, origin, files, is_hashed=not name and parts[0].is_hashed)


def _part(home: Path, text: str) -> _Found:
    file = home / text
    if file.is_dir():
        return _only_series(file)
    if not file.is_file():
        raise ValueError(f"{text}: there is no such file or folder")
    within = not Path(text).is_absolute() and ".." not in Path(text).parts
    return _single(file, Path(text).as_posix() if within else file.name)


def _only_series(folder: Path) -> _Found:
    series, _ = find_series(folder)
    if len(series) != 1:
        raise ValueError(
            f"{folder.name}: holds {len(series)} DICOM series; a folder in a table must hold one"
        )
    return _series(series[0], folder)


def _in_file(file: Path) -> list[_Found]:
    """Make scans of one file: one each of the volumes that a DICOM file holds.

    Raises:
        ValueError: If it is no image.
    """
    series = [] if _is_image(file) else group_series([file])[0]
    if len(series) > 1:
        return [_series(one, file.parent) for one in series]
    return [_single(file, file.name)]


def _single(file: Path, where: str) -> _Found:
    """Make a scan of one file.

    Raises:
        ValueError: If it is no image.
    """
    if _is_image(file):
        return _Found(_flat(split_suffix(where)[0]), where, ((file,),))
    header = read_header(file)
    if header is None:
        raise ValueError(
            f"{where}: is no image; files ending in {', '.join(_endings())} and DICOM are read"
        )
    return _series(Series((file,), header.series, header.modality), file.parent)


def _is_image(file: Path) -> bool:
    suffix = split_suffix(file.name)[1]
    return bool(suffix) and suffix not in DICOM.suffixes


def _flat(where: str) -> str:
    return where.replace("/", "_")


def _endings() -> list[str]:
    return [end for kind in FORMATS if kind is not DICOM for end in kind.suffixes]
