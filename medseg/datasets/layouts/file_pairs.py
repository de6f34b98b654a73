"""Pair the images of one folder with the label maps of another, by their names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg._support.folders import list_files
from medseg.datasets.layouts.contract import CaseListing, ListedCase
from medseg.datasets.names import abbreviate, split_channel, split_suffix
from medseg.errors import Fault

Files = dict[str, list[Path]]
"""Files by what pairs them: their path without ending, ``/`` between folders."""


def find_images(folder: Path, listing: CaseListing, ending: str = "") -> Files:
    """Find the image files of a folder and of those below it.

    Args:
        folder: The folder.
        listing: Takes the faults and warnings.
        ending: Only files whose names end so count.
    """
    found = list_files(folder)
    for fault in found.left_out:
        listing.faults.append(Fault(f"{folder.name}/{fault.where}", fault.what))
    keyed: Files = defaultdict(list)
    others = []
    for file in found.files:
        stem, suffix = split_suffix(file.relative_to(folder).as_posix())
        if suffix and file.name.endswith(ending):
            keyed[stem].append(file)
        elif suffix:
            others.append(file.name)
    if others:
        listing.warnings.append(
            f"{len(others)} image files in {folder.name} do not end in {ending}, the 'file_ending' "
            f"of the data set, and are not used: {abbreviate(others)}"
        )
    return dict(sorted(keyed.items()))


def join_channels(images: Files) -> Files:
    """Put the channels of a scan together; their order is that of their numbers."""
    joined: Files = defaultdict(list)
    for key, files in images.items():
        base, _ = split_channel(key)
        joined[base] += files
    return joined


def pair_files(listing: CaseListing, images: Files, labels: Files) -> None:
    """Make a case of every name with whole images and one label map; the others are faults."""
    for key in sorted({*images, *labels}):
        files = images.get(key, [])
        targets = labels.get(key, [])
        fault = _find_fault(key, files, targets)
        if fault is not None:
            listing.faults.append(fault)
        else:
            listing.cases.append(ListedCase(tuple(files), targets[0], key))


def _find_fault(key: str, files: Sequence[Path], targets: Sequence[Path]) -> Fault | None:
    """Say why files of one name are no case, if they are none."""
    if not files:
        return Fault(key, "the label has no image", _list_names(targets))
    if not targets:
        return Fault(key, "the image has no label", _list_names(files))
    numbers = _by_channel(files)
    if len(targets) > 1 or len(numbers) < len(files):
        what = "several files have the same name; keep one of each"
        return Fault(key, what, _list_names([*files, *targets]))
    return _find_channel_fault(key, numbers)


def _by_channel(files: Sequence[Path]) -> Mapping[str, int | None]:
    """Return the stem of each file and its channel number; equal stems count once."""
    stems = [split_suffix(file.name)[0] for file in files]
    return {stem: split_channel(stem)[1] for stem in stems}


def _find_channel_fault(key: str, numbers: Mapping[str, int | None]) -> Fault | None:
    name = key.rpartition("/")[2]
    if set(numbers) == {name}:
        return None
    last = max(number or 0 for number in numbers.values())
    suffixes = [f"_{number:04d}" for number in range(last + 1)]
    missing = [suffix for suffix in suffixes if f"{name}{suffix}" not in numbers]
    if missing:
        return Fault(key, f"has no channel {abbreviate(missing)}")
    if name in numbers:
        what = "has an image with a channel number and one without; keep one of them"
        return Fault(key, what, abbreviate(numbers))
    return None


def _list_names(files: Sequence[Path]) -> str:
    return abbreviate(file.name for file in files)
