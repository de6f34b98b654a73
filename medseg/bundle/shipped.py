"""The bundles that come with medseg, found by their names from anywhere."""

from __future__ import annotations

import os
from pathlib import Path

from medseg._support.folders import refuse_unreadable
from medseg.errors import BundleError

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "shipped_bundles"
"""Where an installed package has them."""
_IN_SOURCE = _PACKAGE.parent / "bundles"
"""Where they lie in medseg's source, from which an editable installation runs."""

_FILE = "bundle.json"


def list_shipped_bundles() -> dict[str, Path]:
    """Return the name and the folder of each bundle that comes with medseg, sorted.

    Examples:
        >>> "phantom_ct" in list_shipped_bundles()
        True
    """
    home = _INSTALLED if _INSTALLED.is_dir() else _IN_SOURCE
    files = sorted(home.glob(f"*/{_FILE}"))
    return {file.parent.name: file.parent for file in files}


def find_bundle_path(path: str | os.PathLike[str]) -> Path:
    """Return where a bundle lies that is called by its path, or by the name of one of medseg's.

    A file or folder of the user's with this name comes first.

    Raises:
        BundleError: If this person may not look there.
    """
    given = Path(path)
    refuse_unreadable(given, BundleError, by_name=True)
    is_plain_name = len(given.parts) == 1 and not given.suffix
    if given.exists() or not is_plain_name:
        return given
    return list_shipped_bundles().get(given.name, given)
