"""How data sets list their cases; each layout's list becomes the same rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medseg._support.folders import list_files
from medseg.datasets.layouts.bids import DESCRIPTION, bids, is_bids
from medseg.datasets.layouts.checks import is_there
from medseg.datasets.layouts.dicom import dicom, holds_dicom
from medseg.datasets.layouts.entries import CaseListing, ListedCase, Selection
from medseg.datasets.layouts.msd_csv import msd, read_json_list, table
from medseg.datasets.layouts.nnunet_folders import FOLDER_PAIRS, folders, nnunet
from medseg.datasets.names import abbreviate, split_suffix
from medseg.errors import DatasetError

__all__ = ["LISTING", "CaseListing", "ListedCase", "Selection", "list_cases"]

LISTING = "dataset.json"
TABLE = "cases.csv"

_FILES: dict[str, Callable[[Path], CaseListing]] = {".json": msd, ".csv": table}
_FOLDERS: dict[str, Callable[[Path, Selection], CaseListing]] = {
    "msd": lambda root, _: msd(root / LISTING),
    "nnunet": lambda root, _: nnunet(root, root / LISTING),
    "folders": lambda root, _: folders(root),
    "csv": lambda root, _: table(root / TABLE),
    "bids": lambda root, wanted: bids(root, wanted),
    "dicom": lambda root, wanted: dicom(root, list_files(root), wanted),
}

_ANYTHING = Selection()


def list_cases(root: Path, layout: str, wanted: Selection = _ANYTHING) -> CaseListing:
    """List the cases of a data set, whichever layout it has.

    Args:
        root: The data folder, or the ``.json`` or ``.csv`` file that lists the cases.
        layout: ``auto``, ``msd``, ``nnunet``, ``folders``, ``csv``, ``bids`` or ``dicom``.
        wanted: Which channels and labels to take, for layouts whose files say what they are.

    Raises:
        DatasetError: If nothing is found that has this layout.
    """
    try:
        if root.is_dir():
            return (
                _looked_into(root, wanted) if layout == "auto" else _FOLDERS[layout](root, wanted)
            )
        if not root.is_file():
            raise DatasetError(f"{root}: there is no such folder; --data says where the data is")
        if root.suffix.lower() not in _FILES:
            raise DatasetError(f"{root}: a folder, or a .json or .csv list of cases is needed")
        return _FILES[root.suffix.lower()](root)
    except OSError as error:
        raise DatasetError(f"{error.filename or root}: cannot be read: {error.strerror}") from error


def _looked_into(root: Path, wanted: Selection) -> CaseListing:
    """List the cases of a folder, whose layout is recognised."""
    layout = _recognised(root)
    if layout is not None:
        return _FOLDERS[layout](root, wanted)
    # Last, because every file may have to be looked at; and walked through once, for both.
    listing = list_files(root)
    if holds_dicom(listing):
        return dicom(root, listing, wanted)
    there = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    raise DatasetError(
        f"{root}: no list of cases was found. It should hold {LISTING}, {TABLE}, images/ with "
        f"labels/, imagesTr/ with labelsTr/, {DESCRIPTION} with the subjects of BIDS, or DICOM "
        f"series with SEG or RTSTRUCT; it holds {abbreviate(there) or 'nothing'}"
    )


def _is_list(said: Mapping[str, Any], root: Path) -> bool:
    """Tell whether a ``dataset.json`` lists files; nnU-Net v1's lists them without channels."""
    items = said.get("training")
    first = items[0] if isinstance(items, list) and items else None
    image = first.get("image") if isinstance(first, dict) else None
    if not isinstance(image, str) or is_there(root / image):
        return "training" in said
    stem, ending = split_suffix(image)
    return not is_there(root / f"{stem}_0000{ending}")


def _recognised(root: Path) -> str | None:
    """Return the layout that the names of files and folders say, if they do."""
    if (root / LISTING).is_file():
        return "msd" if _is_list(read_json_list(root / LISTING), root) else "nnunet"
    if (root / TABLE).is_file():
        return "csv"
    if any(all((root / name).is_dir() for name in pair) for pair in FOLDER_PAIRS):
        return "folders"
    return "bids" if is_bids(root) else None
