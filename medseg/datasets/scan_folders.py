"""Scans in a folder and below it.

Images are known by the endings of their names, DICOM by its headers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path

from medseg._support.folders import list_files
from medseg.datasets.label_recognition import SortedFiles, set_labels_apart
from medseg.datasets.scan_candidates import (
    Candidate,
    Search,
    flatten,
    make_image,
    make_series,
)
from medseg.datasets.scan_channels import take_named_channels
from medseg.io import SkippedFile, group_series
from medseg.io.dicom.series import NOT_DICOM
from medseg.io.other_kinds import describe_other_kind
from medseg.io.voxel_files import find_voxel_file
from medseg.names import (
    LEDGER,
    has_image_suffix,
    is_label_word,
    make_left_out_name,
    make_safe_name,
    normalize_name,
    split_channel,
    split_role,
    split_suffix,
)

_REMEDY = "to segment one all the same, give it as a file or in a CSV"

SearchProgress = Callable[[int, int], None]
"""Told how many files were looked into so far, and how many there are."""


def search_folder(root: Path, search: Search, progress: SearchProgress) -> None:
    """Find the scans in a folder and below it; label maps among them are left out."""
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
    sorted_files = set_labels_apart(root, images)
    search.notes += _describe_label_maps(root, sorted_files)
    _add_images(root, sorted_files.scans, search)

    def report(count: int) -> None:
        progress(count, len(others))

    found, skipped = group_series(others, report, split_4d=search.split_4d)
    for series in found:
        candidate = make_series(series, root)
        search.candidates.append(candidate)
    voxel_files = {find_voxel_file(file) for file in images}
    _add_skipped(skipped, root, search, voxel_files)


def _describe_label_maps(root: Path, files: SortedFiles) -> Iterator[str]:
    """Say which label maps were left out, so that no scan is missed without a word."""
    if files.named:
        kinds = Counter(_name_kind(file, root) for file in files.named)
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        yield f"{_count(files.named)} left out: {listed}; {_REMEDY}"
    if files.unnamed:
        names = Counter(file.name for file in files.unnamed)
        listed = ", ".join(names)
        yield (
            f"{_count(files.unnamed)} left out that hold labels and lie beside scans, though "
            f"their names do not say so: {listed}; {_REMEDY}"
        )


def _count(files: Sequence[Path]) -> str:
    if len(files) == 1:
        return "1 label map was"
    return f"{len(files)} label maps were"


def _name_kind(file: Path, root: Path) -> str:
    """Say by what a label map is known: the folder it lies in, or the words of its name."""
    for folder in reversed(file.relative_to(root).parts[:-1]):
        if is_label_word(folder):
            return f"in {folder}/"
    stem, suffix = split_suffix(normalize_name(file.name))
    if is_label_word(stem):
        return f"called {stem}{suffix}"
    name, _ = split_role(stem)
    begin = stem.rindex(name) if stem.endswith(name) else stem.index(name)
    end = begin + len(name)
    return f"called {stem[:begin]}…{stem[end:]}{suffix}"


def _reason_to_skip(folder: Path) -> str | None:
    """Say why a folder is not searched, or nothing."""
    if (folder / LEDGER).is_file():
        return "holds results of medseg, which are not segmented again"
    before, _, rest = folder.name.partition("labels")
    images = f"images{rest}"
    if not before and (folder.parent / images).is_dir():
        return f"holds the labels of {images}, not scans"
    return None


def _add_images(root: Path, files: Sequence[Path], search: Search) -> None:
    """Make scans of image files, those that are channels of one scan together."""
    files = take_named_channels(root, files, search)
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


def _add_channels(where: str, files: Sequence[Path], search: Search) -> None:
    """Make a scan of its channels, or leave it out where they are not all there."""
    name = flatten(where)
    numbers = [_channel_number(file) for file in files]
    expected = list(range(search.channels))
    if numbers != expected:
        reason = _describe_channels(numbers, search.channels)
        search.leave_out(make_safe_name(name), where, reason)
        return
    parts = tuple((file,) for file in files)
    candidate = Candidate(name, where, parts)
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


def _make_images(files: Iterable[Path], root: Path) -> Iterator[Candidate]:
    for file in files:
        where = file.relative_to(root).as_posix()
        yield make_image(file, where)


def _add_skipped(
    files: Iterable[SkippedFile],
    root: Path,
    search: Search,
    voxel_files: Set[Path],
) -> None:
    """Report files of no series: damaged ones are left out, others are only counted.

    Args:
        files: The files.
        root: The folder that was searched.
        search: Takes what is left out, and the notes.
        voxel_files: Files that belong to headers among the images.
    """
    counts: Counter[str] = Counter()
    for skipped in files:
        if skipped.file in voxel_files:
            continue
        if skipped.is_damaged:
            where = skipped.file.relative_to(root).as_posix()
            name = make_left_out_name(where)
            search.leave_out(name, where, skipped.reason, skipped.detail)
        elif skipped.reason == NOT_DICOM:
            counts[_describe_kind(skipped.file)] += 1
        else:
            counts[skipped.reason] += 1
    for reason, count in counts.items():
        noun = "file" if count == 1 else "files"
        search.notes.append(f"{count} other {noun}: {reason}")


def _describe_kind(file: Path) -> str:
    ending = file.suffix.lower() or "no ending"
    return describe_other_kind(file) or f"not an image ({ending})"
