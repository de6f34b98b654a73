"""The layouts that medseg ships and installed packages add, and which one a data set has."""

from __future__ import annotations

from pathlib import Path

from medseg._support.registry import Registry
from medseg.datasets.layouts.bids import DESCRIPTION, BidsLayout
from medseg.datasets.layouts.cases_csv import TABLE, CsvLayout
from medseg.datasets.layouts.contract import CaseListing, Layout, Selection
from medseg.datasets.layouts.dataset_json import LISTING
from medseg.datasets.layouts.dicom import DicomLayout
from medseg.datasets.layouts.folders import FoldersLayout
from medseg.datasets.layouts.msd import MsdLayout
from medseg.datasets.layouts.nnunet import NnunetLayout
from medseg.datasets.names import abbreviate
from medseg.errors import DatasetError

AUTO = "auto"
"""What ``data.format`` says where the layout is to be recognised."""

_ANYTHING = Selection()
_DICOM = DicomLayout()
_SHIPPED: dict[str, Layout] = {
    "msd": MsdLayout(),
    "nnunet": NnunetLayout(),
    "csv": CsvLayout(),
    "folders": FoldersLayout(),
    "bids": BidsLayout(),
    "dicom": _DICOM,
}
"""In the order in which a data set is asked."""


def _check_layout(layout: Layout) -> None:
    """Check that a package's layout has the methods of one.

    Raises:
        TypeError: If it lacks one.
    """
    for method in ("recognizes", "list_cases"):
        if not callable(getattr(layout, method, None)):
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
        if root.is_dir():
            return _list_folder(root, layout, selection)
        if root.is_file():
            return _list_file(root, layout, selection)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DatasetError(
            f"cannot be read: {reason}", source=error.filename or root
        ) from error
    raise DatasetError(
        "there is no such folder; --data says where the data is", source=root
    )


def _list_folder(root: Path, layout: str, selection: Selection) -> CaseListing:
    if layout != AUTO:
        return LAYOUTS.get(layout).list_cases(root, selection)
    for candidate in _SHIPPED.values():
        # DICOM last of all, because every file may have to be looked into.
        if candidate is not _DICOM and candidate.recognizes(root):
            return candidate.list_cases(root, selection)
    added, warnings = _load_added()
    for candidate in (*added, _DICOM):
        if candidate.recognizes(root):
            listing = candidate.list_cases(root, selection)
            listing.warnings.extend(warnings)
            return listing
    contents = _describe_contents(root)
    raise DatasetError(
        f"no list of cases was found. It should hold {LISTING}, {TABLE}, images/ with labels/, "
        f"imagesTr/ with labelsTr/, {DESCRIPTION} with the subjects of BIDS, or DICOM series with "
        "SEG or RTSTRUCT",
        source=root,
        detail="; ".join([contents, *warnings]),
    )


def _describe_contents(root: Path) -> str:
    names = sorted(entry.name for entry in root.iterdir())
    shown = [name for name in names if not name.startswith(".")]
    return f"it holds {abbreviate(shown) or 'nothing'}"


def _list_file(file: Path, layout: str, selection: Selection) -> CaseListing:
    """List the cases of a file: by the chosen layout if it reads such files, else by another."""
    if layout != AUTO and LAYOUTS.get(layout).recognizes(file):
        return LAYOUTS.get(layout).list_cases(file, selection)
    added, warnings = _load_added()
    for candidate in (*_SHIPPED.values(), *added):
        if candidate.recognizes(file):
            return candidate.list_cases(file, selection)
    raise DatasetError(
        "a folder, or a .json or .csv list of cases is needed",
        source=file,
        detail="; ".join(warnings) or None,
    )


def _load_added() -> tuple[list[Layout], list[str]]:
    """Load the layouts of installed packages; a package that cannot be used is a warning."""
    usable, errors = LAYOUTS.usable()
    added = [layout for name, layout in usable.items() if name not in _SHIPPED]
    return added, [str(error) for error in errors]
