"""Scans in a folder and below it.

Images are known by the endings of their names, DICOM by its headers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from pathlib import Path

from medseg._support.folders import list_files
from medseg.datasets.label_recognition import SortedFiles, set_labels_apart
from medseg.datasets.scan_candidates import (
    Search,
    make_series,
)
from medseg.datasets.scan_channels import take_named_channels
from medseg.datasets.scan_numbers import add_images
from medseg.datasets.scan_studies import add_studies
from medseg.io import SkippedFile, group_series
from medseg.io.dicom.series import NOT_DICOM
from medseg.io.other_kinds import describe_other_kind
from medseg.io.voxel_files import find_voxel_file
from medseg.names import (
    LEDGER,
    has_image_suffix,
    is_label_word,
    make_left_out_name,
    normalize_name,
    split_role,
    split_suffix,
)

_REMEDY = "to segment one all the same, give it as a file or in a CSV"

_BUNDLE, _MODELS = "bundle.json", "models"
_CURVES, _PREVIEWS = "curves.png", "previews"
"""What a training run leaves in its folder, among else."""

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
    pictures = set(filter(_is_of_bundle, listing.files))
    if pictures:
        note = f"{len(pictures)} pictures of a training run are left out"
        search.notes.append(note)
    for file in listing.files:
        if file in pictures:
            continue
        kind = images if has_image_suffix(file.name) else others
        kind.append(file)
    sorted_files = set_labels_apart(root, images)
    search.notes += _describe_label_maps(root, sorted_files)
    others_than_named = take_named_channels(root, sorted_files.scans, search)
    add_images(root, others_than_named, search)

    def report(count: int) -> None:
        progress(count, len(others))

    found, skipped = group_series(others, report, split_4d=search.split_4d)
    if len(search.specs) > 1:
        add_studies(root, found, search)
    else:
        search.candidates += [make_series(series, root) for series in found]
    voxel_files = {find_voxel_file(file) for file in images}
    _add_skipped(skipped, root, search, voxel_files)


def _is_of_bundle(file: Path) -> bool:
    """Tell whether a file is a picture that a training run drew for people."""
    folder = file.parent
    if folder.name == _PREVIEWS:
        folder = folder.parent
    elif file.name != _CURVES:
        return False
    is_bundle = (folder / _BUNDLE).is_file() and (folder / _MODELS).is_dir()
    return is_bundle and file.suffix.lower() == ".png"


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
