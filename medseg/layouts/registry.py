"""The layouts that medseg ships and installed packages add, and which one a data set has."""

from __future__ import annotations

from pathlib import Path

from medseg._support.folders import Listing, list_files
from medseg._support.registry import Registry
from medseg.errors import DatasetError
from medseg.io.dicom.volume import is_dicom
from medseg.layouts.bids import DESCRIPTION, BidsLayout
from medseg.layouts.cases_csv import TABLE, CsvLayout
from medseg.layouts.contract import CaseListing, Layout, Selection
from medseg.layouts.dataset_json import LISTING
from medseg.layouts.dicom import DicomLayout
from medseg.layouts.folders import FoldersLayout
from medseg.layouts.missing_data import require_data
from medseg.layouts.msd import MsdLayout
from medseg.layouts.nnunet import NnunetLayout
from medseg.layouts.splits import keep_split
from medseg.layouts.tree import TreeLayout, list_tree
from medseg.layouts.tree_outline import describe_tree
from medseg.names import has_image_suffix

AUTO = "auto"
"""What ``data.format`` says where the layout is to be recognised."""

_ANYTHING = Selection()
_TREE = TreeLayout()
_DICOM = DicomLayout()
_SHIPPED: dict[str, Layout] = {
    "msd": MsdLayout(),
    "nnunet": NnunetLayout(),
    "csv": CsvLayout(),
    "folders": FoldersLayout(),
    "bids": BidsLayout(),
    "tree": _TREE,
    "dicom": _DICOM,
}
"""In the order in which a data set is asked."""

_REASONS = {
    "msd": f"{LISTING} lists the cases",
    "nnunet": f"{LISTING} of nnU-Net, with imagesTr/ and labelsTr/",
    "csv": "a table lists the cases",
    "folders": "two folders with images and labels of the same names",
    "bids": f"{DESCRIPTION}, and subjects as in BIDS",
    "dicom": "DICOM series with SEG or RTSTRUCT",
}
"""Why a data set is taken to have a layout, where the layout says no more."""

_BY_LOOKING = (_TREE, _DICOM)
"""Asked last of all: for them every file has to be looked at."""


def _check_layout(layout: Layout) -> None:
    """Check that a package's layout has the methods of one.

    Raises:
        TypeError: If it lacks one.
    """
    for method in ("recognizes", "list_cases"):
        if not callable(
            getattr(
                layout,
                method,
                None,
            )
        ):
            raise TypeError(f"a layout needs the method {method}")


LAYOUTS: Registry[Layout] = Registry(
    "medseg.dataset_layouts", "dataset layout", _SHIPPED, _check_layout
)


def check_layout_name(layout: str) -> None:
    """Refuse a ``data.format`` that is neither ``auto`` nor registered.

    Raises:
        DatasetError: If there is no such layout; it names those there are.
    """
    if layout == AUTO or layout in LAYOUTS.names:
        return
    known = ", ".join((AUTO, *LAYOUTS.names))
    raise DatasetError(
        f"data.format is '{layout}', and there is no such layout; there are: {known}. Choose one "
        "of these, or install the package that provides it"
    )


def list_cases(
    root: Path, layout: str, selection: Selection = _ANYTHING
) -> CaseListing:
    """List the cases of a data set, whichever layout it has.

    Args:
        root: The data folder, or the file that lists the cases (``.json``, ``.csv``), which
            decides itself how it is read.
        layout: ``auto`` or the name of a registered layout.
        selection: Which channels and labels to take, for layouts whose files say what they are.

    Raises:
        DatasetError: If there is no such layout, or nothing is found that has it.
        MissingExtraError: If the package that provides the layout cannot be used.

    Examples:
        >>> LAYOUTS.names[:3]
        ('msd', 'nnunet', 'csv')
    """
    check_layout_name(layout)
    try:
        require_data(root)
        list_them = _list_folder if root.is_dir() else _list_file
        listing = list_them(
            root,
            layout,
            selection,
        )
        if selection.splits:
            keep_split(listing, root, selection.splits)
        return listing
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DatasetError(
            f"cannot be read: {reason}", source=error.filename or root
        ) from error


def _list_folder(
    root: Path,
    layout: str,
    selection: Selection,
) -> CaseListing:
    chosen = layout
    if selection.image_patterns or selection.label_pattern:
        chosen = "tree"
    elif selection.columns is not None:
        chosen = "csv"
    if chosen != AUTO:
        listing = LAYOUTS.get(chosen).list_cases(root, selection)
        return _name_layout(listing, chosen)
    return _recognise_folder(root, selection)


def _recognise_folder(root: Path, selection: Selection) -> CaseListing:
    """List the cases of a folder by the first layout that recognises it.

    Raises:
        DatasetError: If none does.
    """
    for name, candidate in _SHIPPED.items():
        if candidate not in _BY_LOOKING and candidate.recognizes(root):
            listing = candidate.list_cases(root, selection)
            return _name_layout(listing, name)
    added, warnings = _load_added()
    for name, candidate in added.items():
        if candidate.recognizes(root):
            listing = candidate.list_cases(root, selection)
            listing.warnings.extend(warnings)
            return _name_layout(listing, name)
    found = list_files(root)
    looked = _list_by_looking(
        root,
        found,
        selection,
    )
    if looked is not None:
        looked.warnings.extend(warnings)
        return looked
    raise DatasetError(
        f"no list of cases was found, no labels with their images, and no DICOM series with SEG or "
        f"RTSTRUCT. It may hold {LISTING}, {TABLE}, images/ with labels/, imagesTr/ with "
        f"labelsTr/, {DESCRIPTION} with the subjects of BIDS, or one folder per case. Else say "
        "which files are which: medseg plan --images 'scans/*.nii.gz' --labels "
        "'truth/*_manual.nii.gz'; or write a table to fill in: medseg plan --draft-csv cases.csv",
        source=root,
        detail="\n".join([describe_tree(root, found), *warnings]),
    )


def _list_by_looking(
    root: Path, found: Listing, selection: Selection
) -> CaseListing | None:
    """List the cases of a folder that is known by its files alone, which are listed once.

    Where there are both, DICOM with labels goes before pictures and volumes beside it.
    """
    # A file that is called an image need not be opened to see that it is no DICOM.
    others = [file for file in found.files if not has_image_suffix(file.name)]
    if any(is_dicom(file) for file in others):
        try:
            return _name_layout(
                _DICOM.list_found(
                    root,
                    found,
                    selection,
                ),
                "dicom",
            )
        except DatasetError:
            listing = list_tree(
                root,
                found,
                selection,
            )
            if listing is None:
                raise
            return listing
    return list_tree(
        root,
        found,
        selection,
    )


def _name_layout(
    listing: CaseListing,
    name: str,
) -> CaseListing:
    listing.layout = name
    # Two folders that pair by more than equal names say so themselves.
    is_said = name == "folders" and listing.recognised
    if name in _REASONS and not is_said:
        listing.recognised = (_REASONS[name], *listing.recognised)
    return listing


def _list_file(
    file: Path,
    layout: str,
    selection: Selection,
) -> CaseListing:
    """List the cases of a file: by the chosen layout if it reads such files, else by another."""
    if layout != AUTO and LAYOUTS.get(layout).recognizes(file):
        listing = LAYOUTS.get(layout).list_cases(file, selection)
        return _name_layout(listing, layout)
    added, warnings = _load_added()
    for name, candidate in (_SHIPPED | added).items():
        if candidate.recognizes(file):
            return _name_layout(candidate.list_cases(file, selection), name)
    raise DatasetError(
        "a folder, or a .json or .csv list of cases is needed",
        source=file,
        detail="; ".join(warnings) or None,
    )


def _load_added() -> tuple[dict[str, Layout], list[str]]:
    """Load the layouts of installed packages; a package that cannot be used is a warning."""
    usable, errors = LAYOUTS.usable()
    added = {
        name: layout for name, layout in usable.items() if name not in _SHIPPED
    }
    return added, [str(error) for error in errors]
