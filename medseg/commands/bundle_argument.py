"""What stands where a bundle is asked for: a bundle, or something else, named for what it is.

Most people who begin have data and no bundle. So a data set, an archive, a scan or a folder of
results in a bundle's place is recognised, and the answer holds the command that goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medseg._support.platform.shells import quote_argument
from medseg.bundle.bundle import (
    ASSEMBLY_FILE,
    BUNDLE_FILE,
    Bundle,
    load_bundle,
)
from medseg.bundle.shipped import find_bundle_path
from medseg.bundle.spec import BundleSpec
from medseg.downloads.catalogue import (
    OpenDataset,
    find_by_folder,
    list_open_datasets,
)
from medseg.errors import BundleError, DatasetError
from medseg.io.dicom.volume import is_dicom
from medseg.layouts import list_cases
from medseg.layouts.dataset_json import read_json_object
from medseg.names import LEDGER, has_image_suffix
from medseg.planning import is_nnunet_plans
from medseg.planning.description import make_bundle_name
from medseg.training.parent_fields import add_parent_fields

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


def open_bundle(
    path: str | Path,
    overrides: Iterable[str] = (),
    parent: BundleSpec | None = None,
) -> Bundle:
    """Load a bundle; where something else is given, say what it is and what to do with it.

    Args:
        path: As for ``load_bundle``.
        overrides: Assignments such as ``training.steps=200``.
        parent: The trained bundle to start from, which has what the bundle leaves out.

    Raises:
        BundleError: If it is none, or has faults.
    """
    found = find_bundle_path(path)
    if not may_be_bundle(found):
        raise _describe_other(found)
    if parent is None:
        return load_bundle(path, overrides)

    def complete(content: dict[str, Any]) -> dict[str, Any]:
        return add_parent_fields(content, parent)

    return load_bundle(path, overrides, complete=complete)


def may_be_bundle(path: Path) -> bool:
    """Tell whether a path is a bundle, right or wrong, or nothing at all; not something else.

    Args:
        path: As ``find_bundle_path`` returns it.
    """
    if path.is_dir():
        files = (path / BUNDLE_FILE, path / ASSEMBLY_FILE)
        return any(file.exists() for file in files)
    if path.is_file():
        is_json = path.suffix.lower() == ".json"
        return is_json and not _lists_cases(path)
    return _find_open_dataset(path) is None


def _describe_other(path: Path) -> BundleError:
    """Return the error that says what a path is instead of a bundle."""
    dataset = _find_open_dataset(path)
    if not path.exists() and dataset is not None:
        return BundleError(
            "this is an open data set, not a bundle; fetch it and plan a bundle for it, or train "
            "one of those that medseg bundles lists",
            source=path,
            detail=f"medseg download {dataset.name}, then medseg plan {dataset.folder}",
        )
    if path.is_dir():
        return _describe_folder(path)
    if _lists_cases(path):
        return _suggest_plan(path, "this is a list of cases")
    if path.name.lower().endswith(_ARCHIVES) and not has_image_suffix(
        path.name
    ):
        what = "this is an archive; unpack it first, and plan a bundle for its folder"
        folder = path.name.split(".")[0]
        return BundleError(
            what,
            source=path,
            detail=f"then medseg plan {quote_argument(folder)}",
        )
    if has_image_suffix(path.name) or is_dicom(path):
        return BundleError(
            "this is a single image; a network learns from a folder of images with their label "
            "maps (medseg plan FOLDER), and a trained bundle segments it",
            source=path,
            detail=f"medseg segment BUNDLE {quote_argument(path)} RESULTS",
        )
    return BundleError(
        "this is no bundle; a bundle is a folder with a bundle.json, or such a file",
        source=path,
    )


def _describe_folder(folder: Path) -> BundleError:
    """Say what a folder without a ``bundle.json`` is."""
    if (folder / LEDGER).is_file():
        return BundleError(
            "this is a folder of results, not a bundle; the bundle is what segmented them, and "
            "references say how good they are",
            source=folder,
            detail=f"medseg evaluate {quote_argument(folder)} REFERENCES",
        )
    try:
        listing = list_cases(folder, "auto")
    except DatasetError as error:
        return BundleError(
            f"this folder holds no {BUNDLE_FILE}, and as a data set it cannot be used: "
            f"{error.message}",
            source=folder,
            detail=error.detail,
        )
    count = len(listing.cases)
    return _suggest_plan(folder, f"this is a data set of {count} cases")


def _suggest_plan(path: Path, what: str) -> BundleError:
    """Return the error for a data set, with the commands that plan and train."""
    data = quote_argument(path)
    name = path.stem if path.is_file() else path.resolve().name
    file = f"{make_bundle_name(name)}.json"
    return BundleError(
        f"{what}, not a bundle; plan a bundle for it and train that, or do both in one step with "
        "a time budget",
        source=path,
        detail=f"medseg plan {data} -o {file}, then medseg train {file}; "
        f"or medseg train {data} --budget 20m",
    )


def _find_open_dataset(path: Path) -> OpenDataset | None:
    """Return the open data set that a name stands for, where nothing is called so here."""
    if len(path.parts) != 1:
        return None
    return list_open_datasets().get(path.name) or find_by_folder(path.name)


def _lists_cases(file: Path) -> bool:
    """Tell whether a file is a list of cases, or nnU-Net's plans: what ``medseg plan`` reads."""
    ending = file.suffix.lower()
    if ending != ".json":
        return ending == ".csv"
    try:
        if is_nnunet_plans(file):
            return True
        content = read_json_object(file)
    except DatasetError:
        return False
    return isinstance(content.get("training"), list)
