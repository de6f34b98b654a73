"""Data that are not there: where they were looked for, and how to get them if they are open."""

from __future__ import annotations

from pathlib import Path

from medseg.downloads.catalogue import find_by_folder
from medseg.errors import DatasetError


def require_data(root: Path, usual: str = "") -> None:
    """Refuse a data set that is not there.

    Args:
        root: Its folder, or its list of cases.
        usual: The folder that a bundle names; it tells which data set is meant where a person
            calls the folder something else.

    Raises:
        DatasetError: If it is not there; for a known data set it says how to download it.
    """
    try:
        if root.is_dir() or root.is_file():
            return
    except OSError:  # who reads it will say why it cannot be read
        return
    how = suggest_download(root, usual)
    remedy = "--data says where the data is"
    if how:
        remedy = f"{how} downloads this data set; {remedy}"
    raise DatasetError(f"there is no such folder; {remedy}", source=root)


def suggest_download(root: Path, usual: str = "") -> str:
    """Return the command that downloads a data set; ``""`` where it is not known.

    Args:
        root: Where it would be.
        usual: The folder that a bundle names.
    """
    called = find_by_folder(root.name)
    dataset = called or find_by_folder(Path(usual).name)
    if dataset is None:
        return ""
    command = f"medseg download {dataset.name}"
    is_here = root.absolute().parent == Path.cwd()
    # Names of other folders stand in the error's source alone.
    return command if called and is_here else f"{command} -o FOLDER"
