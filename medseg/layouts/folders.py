"""Data sets of two folders, ``images/`` and ``labels/``, with files of the same names."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from medseg._support.folders import list_files
from medseg.errors import DatasetError
from medseg.layouts.contract import CaseListing, Selection
from medseg.layouts.file_pairs import (
    Files,
    find_images,
    join_channels,
    pair_files,
)
from medseg.layouts.nnunet import IMAGES, LABELS
from medseg.layouts.tree import list_tree
from medseg.layouts.tree_names import find_part

FOLDER_PAIRS = (("images", "labels"), (IMAGES, LABELS))
"""Folders of images and of their labels."""

VALIDATION = "imagesVa"
"""The images that AMOS keeps for validation, beside ``imagesTr``."""

_LABEL_ENDING = re.compile(r"(.+)_(?:seg|label|mask)")


class FoldersLayout:
    """Images and label maps that have the same names, with all folders below.

    A label may also end in ``_seg``, ``_label`` or ``_mask``; images without a label of their
    own name may carry nnU-Net's channel numbers.
    """

    def recognizes(self, root: Path) -> bool:
        """Tell whether there is a pair of folders."""
        return _find_pair(root) is not None

    def list_cases(
        self,
        root: Path,
        selection: Selection,
    ) -> CaseListing:
        """List the cases of the two folders.

        Raises:
            DatasetError: If there is no such pair of folders.
        """
        pair = _find_pair(root)
        if pair is None:
            pairs = " or ".join(
                f"{images}/ and {labels}/" for images, labels in FOLDER_PAIRS
            )
            raise DatasetError(
                f"the folders {pairs} are needed in it", source=root
            )
        listing = _pair_folders(root, *pair)
        is_whole = listing.cases and not listing.faults
        has_parts = _names_parts(listing) or (root / VALIDATION).is_dir()
        if is_whole and not has_parts:
            return listing
        return (
            _read_as_tree(
                root,
                listing,
                selection,
            )
            or listing
        )


def _pair_folders(
    root: Path, image_folder: str, label_folder: str
) -> CaseListing:
    """Pair the files of two folders."""
    listing = CaseListing(root, has_fields=False)
    images = find_images(root / image_folder, listing)
    labels = find_images(root / label_folder, listing)
    targets = _key_by_image(labels, images)
    scans = _join_channels_of_others(images, targets)
    pair_files(
        listing,
        scans,
        targets,
    )
    return listing


def _names_parts(listing: CaseListing) -> bool:
    """Tell whether folders split the cases for training and validation."""
    folders: set[str] = set()
    for case in listing.cases:
        first, slash, _ = (case.name or "").partition("/")
        if slash:
            folders.add(first)
    return any(find_part(folder) for folder in folders)


def _read_as_tree(
    root: Path, listing: CaseListing, selection: Selection
) -> CaseListing | None:
    """Return what names say beyond those that are the same: ``x_img`` and ``x_seg``, ``val/``.

    ``None`` where this finds no more cases and no split.
    """
    try:
        tree = list_tree(
            root,
            list_files(root),
            selection,
        )
    except DatasetError:
        if listing.cases:
            return None
        raise
    if tree is None:
        return None
    has_folds = any("fold" in case.fields for case in tree.cases)
    finds_more = len(tree.cases) > len(listing.cases)
    return tree if has_folds or finds_more else None


def _find_pair(root: Path) -> tuple[str, str] | None:
    for images, labels in FOLDER_PAIRS:
        if (root / images).is_dir() and (root / labels).is_dir():
            return images, labels
    return None


def _key_by_image(
    labels: Files,
    images: Files,
) -> Files:
    """Return the label maps by the name of their image: without an ending such as ``_seg``."""
    targets: Files = defaultdict(list)
    for key, files in labels.items():
        match = _LABEL_ENDING.fullmatch(key)
        # An image may be called x_mask itself.
        if match is None or key in images:
            targets[key] += files
        else:
            name = match[1]
            targets[name] += files
    return targets


def _join_channels_of_others(
    images: Files,
    targets: Files,
) -> Files:
    """Put channels together where no label has an image's whole name.

    ``img_0001`` may be the name of a case, and then the number is no channel's.
    """
    whole: Files = {}
    others: Files = {}
    for key, files in images.items():
        group = whole if key in targets else others
        group[key] = files
    return join_channels(others) | whole
