"""Scans in a folder and below it.

Images are known by the endings of their names, DICOM by its headers.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg._support.folders import FolderWalk
from medseg._support.spool import Spool
from medseg._support.text_hashes import TextHashes
from medseg.datasets.label_recognition import FolderLabels, LabelSearch
from medseg.datasets.scan_candidates import Search, make_image, make_series
from medseg.datasets.scan_channels import take_named_channels
from medseg.datasets.scan_numbers import add_images
from medseg.datasets.scan_studies import add_studies
from medseg.io import SkippedFile
from medseg.io.dicom.series import NOT_DICOM
from medseg.io.dicom.series_search import SeriesSearch
from medseg.io.other_kinds import describe_other_kind
from medseg.io.voxel_files import find_voxel_file
from medseg.names import (
    LEDGER,
    abbreviate,
    has_image_suffix,
    is_label_word,
    normalize_name,
    split_role,
    split_suffix,
)
from medseg.pseudonyms import (
    make_left_out_name,
)

_REMEDY = "to segment one all the same, give it as a file or in a CSV"

_MOST_NAMED = 20

_BUNDLE, _MODELS = "bundle.json", "models"
_CURVES, _PREVIEWS = "curves.png", "previews"
"""What a training run leaves in its folder, among else."""

SearchProgress = Callable[[int, int], None]
"""Told how many files were looked into so far, and how many there are."""


def search_folder(root: Path, search: Search, progress: SearchProgress) -> None:
    """Find the scans in a folder and below it; label maps among them are left out.

    Images of one channel are scans as soon as they are seen; DICOM, and the channels of scans, are
    kept until all is known: of very many, on the disk.
    """
    found = _FoundFiles(root, search)
    found.find()
    if found.images:
        others_than_named = take_named_channels(root, found.images, search)
        add_images(root, others_than_named, search)

    def report(count: int) -> None:
        progress(count, len(found.others))

    has_channels = len(search.specs) > 1
    series = SeriesSearch(search.split_4d, by_study=has_channels)
    skipped = _SkippedFiles(root, search, found.voxel_files)
    for skipped_file in series.look_at(found.others, report):
        skipped.add(skipped_file)
    if has_channels:
        add_studies(root, series.find_studies(), search)
    else:
        candidates = (make_series(each, root) for each in series.find())
        search.candidates.extend(candidates)
    for skipped_file in series.list_skipped():
        skipped.add(skipped_file)
    skipped.note()


class _FoundFiles:
    """The files of a search, told apart.

    Args:
        root: The folder that is searched.
        search: Takes scans of one channel, what is left out, and notes.

    Attributes:
        images: Images that may be channels of scans.
        others: Files that only a look into them tells of.
        voxel_files: Files that belong to headers among the images.
    """

    def __init__(self, root: Path, search: Search) -> None:
        self._root = root
        self._search = search
        self._labels = LabelSearch(root)
        self._label_maps: dict[Path, FolderLabels] = {}
        self._named: Counter[str] = Counter()
        self._unnamed: Counter[str] = Counter()
        self._pictures = 0
        self.images: Spool[Path] = Spool(pack=str, unpack=Path)
        self.others: Spool[Path] = Spool(pack=str, unpack=Path)
        self.voxel_files = TextHashes()

    def find(self) -> None:
        """Go through all folders."""
        walk = FolderWalk(self._root, _reason_to_skip, self._enter)
        for file in walk.find_files():
            self._add(file)
        search = self._search
        for fault in walk.list_left_out():
            name = make_left_out_name(fault.where)
            search.leave_out(name, fault.where, fault.what, fault.detail)
        for folder in walk.list_skipped():
            search.notes.append(f"{folder.where}: {folder.what}")
        if self._pictures:
            note = f"{self._pictures} pictures of a training run are left out"
            search.notes.append(note)
        search.notes += _describe_label_maps(self._named, self._unnamed)

    def _enter(self, folder: Path, names: Sequence[str]) -> None:
        """Tell label maps apart in a folder whose files come next."""
        images = []
        for name in names:
            if has_image_suffix(name) and not _is_of_bundle(folder, name):
                images.append(name)
        self._label_maps = {
            above: labels
            for above, labels in self._label_maps.items()
            if above in folder.parents
        }
        self._label_maps[folder] = self._labels.enter(folder, images)

    def _add(self, file: Path) -> None:
        if not has_image_suffix(file.name):
            self.others.append(file)
            return
        if _is_of_bundle(file.parent, file.name):
            self._pictures += 1
            return
        voxel_file = find_voxel_file(file)
        if voxel_file != file:
            self.voxel_files.add(os.path.normcase(voxel_file))
        labels = self._label_maps[file.parent]
        if file.name in labels.named:
            self._named[_name_kind(file, self._root)] += 1
        elif file.name in labels.unnamed:
            self._unnamed[file.name] += 1
        elif self._search.channels == 1 and len(self._search.specs) < 2:
            where = file.relative_to(self._root).as_posix()
            self._search.candidates.append(make_image(file, where))
        else:
            self.images.append(file)


def _is_of_bundle(folder: Path, name: str) -> bool:
    """Tell whether a file is a picture that a training run drew for people."""
    if folder.name == _PREVIEWS:
        folder = folder.parent
    elif name != _CURVES:
        return False
    is_bundle = (folder / _BUNDLE).is_file() and (folder / _MODELS).is_dir()
    return is_bundle and name.lower().endswith(".png")


def _describe_label_maps(
    named: Counter[str], unnamed: Counter[str]
) -> Iterator[str]:
    """Say which label maps were left out, so that no scan is missed without a word.

    Args:
        named: Those that are called so, by what they are known by.
        unnamed: The others, by their names.
    """
    if named:
        listed = ", ".join(f"{count} {kind}" for kind, count in named.items())
        yield f"{_count(named)} left out: {listed}; {_REMEDY}"
    if unnamed:
        yield (
            f"{_count(unnamed)} left out that hold labels and lie beside scans, though "
            f"their names do not say so: {abbreviate(unnamed, _MOST_NAMED)}; {_REMEDY}"
        )


def _count(label_maps: Counter[str]) -> str:
    count = label_maps.total()
    if count == 1:
        return "1 label map was"
    return f"{count} label maps were"


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


@dataclass(slots=True)
class _SkippedFiles:
    """Files of no series: damaged ones are left out, others are only counted.

    Attributes:
        root: The folder that was searched.
        search: Takes what is left out, and the notes.
        voxel_files: Files that belong to headers among the images.
        counts: Why files were skipped → how many were.
    """

    root: Path
    search: Search
    voxel_files: TextHashes
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, skipped: SkippedFile) -> None:
        """Add a file."""
        if os.path.normcase(skipped.file) in self.voxel_files:
            return
        if skipped.is_damaged:
            where = skipped.file.relative_to(self.root).as_posix()
            name = make_left_out_name(where)
            self.search.leave_out(name, where, skipped.reason, skipped.detail)
        elif skipped.reason == NOT_DICOM:
            self.counts[_describe_kind(skipped.file)] += 1
        else:
            self.counts[skipped.reason] += 1

    def note(self) -> None:
        """Say how many there were."""
        for reason, count in self.counts.items():
            noun = "file" if count == 1 else "files"
            self.search.notes.append(f"{count} other {noun}: {reason}")


def _describe_kind(file: Path) -> str:
    ending = file.suffix.lower() or "no ending"
    return describe_other_kind(file) or f"not an image ({ending})"
