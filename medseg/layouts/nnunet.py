"""Raw data sets of nnU-Net: ``imagesTr/x_0000.nii.gz`` and ``labelsTr/x.nii.gz``."""

from __future__ import annotations

from pathlib import Path

from medseg.errors import DatasetError, Fault
from medseg.layouts.contract import CaseListing, Selection
from medseg.layouts.dataset_json import (
    LISTING,
    find_ignore_value,
    read_json_object,
)
from medseg.layouts.file_pairs import (
    Files,
    find_images,
    join_channels,
    pair_files,
)
from medseg.layouts.msd import lists_files
from medseg.names import abbreviate, split_channel

IMAGES, LABELS = "imagesTr", "labelsTr"


class NnunetLayout:
    """Two folders whose files have the same names but for nnU-Net's channel numbers.

    ``dataset.json`` may be absent; its ``file_ending`` counts.
    """

    def recognizes(self, root: Path) -> bool:
        """Tell whether there is a ``dataset.json`` that does not list files by their names."""
        listing = root / LISTING
        return listing.is_file() and not lists_files(
            read_json_object(listing), root
        )

    def list_cases(self, root: Path, selection: Selection) -> CaseListing:
        """List the cases of the two folders.

        Raises:
            DatasetError: If a folder is missing, or ``dataset.json`` is not right.
        """
        for name in (IMAGES, LABELS):
            if not (root / name).is_dir():
                raise DatasetError(
                    f"an nnU-Net data set needs the folder {name}/ in it",
                    source=root,
                )
        path = root / LISTING
        content = read_json_object(path) if path.is_file() else {}
        ending = content.get("file_ending", "")
        if not isinstance(ending, str):
            raise DatasetError(
                "'file_ending' must be text such as .nii.gz", source=path
            )
        listing = CaseListing(
            root, has_fields=False, ignore=find_ignore_value(content)
        )
        images = find_images(root / IMAGES, listing, ending)
        numbered = _take_numbered(images, listing)
        labels = find_images(root / LABELS, listing, ending)
        pair_files(listing, join_channels(numbered), labels)
        return listing


def _take_numbered(images: Files, listing: CaseListing) -> Files:
    """Return the images with a channel number; the others are faults."""
    numbered: Files = {}
    for key, files in images.items():
        _, number = split_channel(key)
        if number is not None:
            numbered[key] = files
            continue
        what = "an image has no channel number; nnU-Net's images end in _0000, _0001, …"
        names = abbreviate(file.name for file in files)
        listing.faults.append(Fault(key, what, names))
    return numbered
