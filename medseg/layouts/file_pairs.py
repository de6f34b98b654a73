"""Pair the images of one folder with the label maps of another, by their names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medseg._support.folders import list_files
from medseg.errors import Fault
from medseg.layouts.contract import CaseListing, ListedCase
from medseg.names import (
    abbreviate,
    normalize_name,
    split_channel,
    split_suffix,
)

Files = dict[str, list[Path]]
"""Files by what pairs them: their path without ending, in NFC, ``/`` between folders."""


def find_images(folder: Path, listing: CaseListing, ending: str = "") -> Files:
    """Find the image files of a folder and of those below it.

    Args:
        folder: The folder.
        listing: Takes the faults and warnings.
        ending: Only files whose names end so count.
    """
    found = list_files(folder)
    for fault in found.left_out:
        where = f"{folder.name}/{fault.where}"
        listing.faults.append(replace(fault, where=where))
    keyed: Files = defaultdict(list)
    others = []
    for file in found.files:
        path = file.relative_to(folder).as_posix()
        stem, suffix = split_suffix(path)
        if not suffix:
            continue
        if file.name.endswith(ending):
            keyed[normalize_name(stem)].append(file)
        else:
            others.append(file.name)
    if others:
        listing.warnings.append(
            f"{len(others)} image files in {folder.name} do not end in {ending}, the 'file_ending' "
            f"of the data set, and are not used: {abbreviate(others)}"
        )
    return {key: keyed[key] for key in sorted(keyed)}


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
            continue
        label = targets[0]
        listing.cases.append(ListedCase(tuple(files), label, key))


def _find_fault(
    key: str, files: Sequence[Path], targets: Sequence[Path]
) -> Fault | None:
    """Say why files of one name are no case, if they are none."""
    if not files:
        return Fault(key, "the label has no image", _list_names(targets))
    if not targets:
        return Fault(key, "the image has no label", _list_names(files))
    stems = []
    for file in files:
        stem, _ = split_suffix(normalize_name(file.name))
        stems.append(stem)
    has_copies = len(set(stems)) < len(stems)
    if has_copies or len(targets) > 1:
        what = "several files have the same name; keep one of each"
        return Fault(key, what, _list_names([*files, *targets]))
    return _find_channel_fault(key, stems)


def _find_channel_fault(key: str, stems: Sequence[str]) -> Fault | None:
    """Say why images of one name are not all channels of a scan, if they are not.

    Args:
        key: What they share.
        stems: Their names without ending; all differ.
    """
    _, _, name = key.rpartition("/")
    if stems == [name]:
        return None
    numbers = [_channel_number(stem) for stem in stems]
    missing = []
    for number in range(max(numbers) + 1):
        suffix = f"_{number:04d}"
        if name + suffix not in stems:
            missing.append(suffix)
    if missing:
        return Fault(key, f"has no channel {abbreviate(missing)}")
    if name in stems:
        what = "has an image with a channel number and one without; keep one of them"
        return Fault(key, what, abbreviate(stems))
    return None


def _channel_number(stem: str) -> int:
    _, number = split_channel(stem)
    return number or 0


def _list_names(files: Sequence[Path]) -> str:
    return abbreviate(file.name for file in files)
