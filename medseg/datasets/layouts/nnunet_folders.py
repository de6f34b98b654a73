"""Data sets whose cases are pairs of files with equal names in two folders."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from medseg._support.folders import list_files
from medseg.datasets.layouts.dataset_json import ignored_value
from medseg.datasets.layouts.entries import CaseListing, ListedCase
from medseg.datasets.layouts.msd_csv import read_json_list
from medseg.datasets.names import abbreviate, split_channel, split_suffix
from medseg.errors import DatasetError, Fault

FOLDER_PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"))
"""Folders of images and of their labels."""

Files = dict[str, list[Path]]
"""Files by what pairs them: their path without ending, ``/`` between folders."""

_LABEL_ENDING = re.compile(r"(.+)_(?:seg|label|mask)")


def nnunet(root: Path, listing: Path) -> CaseListing:
    """List the cases of a raw nnU-Net folder: ``imagesTr/x_0000.nii.gz``, ``labelsTr/x.nii.gz``.

    Args:
        root: The folder.
        listing: Its ``dataset.json``, which may be absent; its ``file_ending`` counts.

    Raises:
        DatasetError: If a folder is missing, or ``dataset.json`` is not right.
    """
    for name in ("imagesTr", "labelsTr"):
        if not (root / name).is_dir():
            raise DatasetError(f"{root}: an nnU-Net data set needs the folder {name}/ in it")
    said = read_json_list(listing) if listing.is_file() else {}
    ending = said.get("file_ending", "")
    if not isinstance(ending, str):
        raise DatasetError(f"{listing}: 'file_ending' must be text such as .nii.gz")
    found = CaseListing(root, has_fields=False, ignore=ignored_value(said))
    images = _images(root / "imagesTr", found, ending)
    for key in [key for key in images if split_channel(key)[1] is None]:
        names = abbreviate(file.name for file in images.pop(key))
        found.faults.append(
            Fault(key, f"{names} has no channel number; nnU-Net names images {key}_0000, …")
        )
    _pair(found, _joined(images), _images(root / "labelsTr", found, ending))
    return found


def folders(root: Path) -> CaseListing:
    """List the cases of ``images/`` and ``labels/``, which have the same names.

    A label may also end in ``_seg``, ``_label`` or ``_mask``; images without a label of their
    own name may carry nnU-Net's channel numbers. Folders below are searched, too.

    Raises:
        DatasetError: If there is no such pair of folders.
    """
    pair = next((p for p in FOLDER_PAIRS if all((root / name).is_dir() for name in p)), None)
    if pair is None:
        wanted = " or ".join(f"{images}/ and {labels}/" for images, labels in FOLDER_PAIRS)
        raise DatasetError(f"{root}: the folders {wanted} are needed in it")
    found = CaseListing(root, has_fields=False)
    images, labels = (_images(root / name, found) for name in pair)
    targets: Files = defaultdict(list)
    for key, files in labels.items():
        plain = _LABEL_ENDING.fullmatch(key)
        targets[plain[1] if plain and key not in images else key] += files
    whole = {key: files for key, files in images.items() if key in targets}
    rest = {key: files for key, files in images.items() if key not in targets}
    _pair(found, _joined(rest) | whole, targets)
    return found


def _images(folder: Path, found: CaseListing, ending: str = "") -> Files:
    listing = list_files(folder)
    found.faults.extend(
        Fault(f"{folder.name}/{fault.where}", fault.what) for fault in listing.left_out
    )
    keyed: Files = defaultdict(list)
    others = []
    for file in listing.files:
        stem, suffix = split_suffix(file.relative_to(folder).as_posix())
        if suffix and file.name.endswith(ending):
            keyed[stem].append(file)
        elif suffix:
            others.append(file.name)
    if others:
        found.warnings.append(
            f"{len(others)} image files in {folder.name} do not end in {ending}, the 'file_ending' "
            f"of the data set, and are not used: {abbreviate(others)}"
        )
    return dict(sorted(keyed.items()))


def _joined(images: Files) -> Files:
    """Put the channels of a scan together; their order is that of their numbers."""
    joined: Files = defaultdict(list)
    for key, files in images.items():
        joined[split_channel(key)[0]] += files
    return joined


def _pair(found: CaseListing, images: Files, labels: Files) -> None:
    """Make a row of every name with whole images and one label; the others are faults."""
    for key in sorted({*images, *labels}):
        files, targets = images.get(key, []), labels.get(key, [])
        fault = _fault(key, files, targets)
        if fault:
            found.faults.append(Fault(key, fault))
        else:
            found.rows.append(ListedCase(tuple(files), targets[0], key))


def _fault(key: str, files: list[Path], targets: list[Path]) -> str | None:
    if not files:
        return f"the label {abbreviate(file.name for file in targets)} has no image"
    if not targets:
        return f"the image {abbreviate(file.name for file in files)} has no label"
    stems = [split_suffix(file.name)[0] for file in files]
    if len(targets) > 1 or len(set(stems)) < len(stems):
        names = abbreviate(file.name for file in (*files, *targets))
        return f"several files have the same name ({names}); keep one of each"
    name = key.rpartition("/")[2]
    if stems == [name]:
        return None
    last = max(split_channel(stem)[1] or 0 for stem in stems)
    missing = [each for n in range(last + 1) if (each := f"{name}_{n:04d}") not in stems]
    if missing:
        return f"has no channel {abbreviate(missing)}"
    return f"has both {name} and {stems[-1]}; keep one of them" if name in stems else None
