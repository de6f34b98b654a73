"""Where TotalSegmentator's weights lie: ``DatasetNNN_name`` in a folder of nnU-Net's results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from medseg._support.folders import refuse_unreadable
from medseg.errors import MedsegError
from medseg.interop.totalsegmentator.tasks import TaskPart

HOME = "~/.totalsegmentator/nnunet/results"
"""Where TotalSegmentator keeps them unless told otherwise."""


def find_weights(folder: Path, parts: Iterable[TaskPart]) -> Mapping[int, Path]:
    """Return the folder of each data set.

    Args:
        folder: Of nnU-Net's results, or one above it as TotalSegmentator makes it.
        parts: Networks that are needed.

    Raises:
        MedsegError: If there is no such folder, or some are missing; names all of these.
    """
    refuse_unreadable(folder, by_name=True)
    if not folder.is_dir():
        raise MedsegError(
            f"is no folder; TotalSegmentator keeps its weights in {HOME}",
            source=folder,
        )
    roots = [folder, folder / "results", folder / "nnunet" / "results"]
    found: dict[int, Path] = {}
    missing: dict[str, None] = {}
    for part in parts:
        place = _find_dataset(roots, part)
        if place is None:
            missing[part.folder] = None
        else:
            found[part.dataset] = place
    if missing:
        raise MedsegError(
            f"{len(missing)} of the folders of weights that this task needs are not here; "
            "TotalSegmentator's totalseg_download_weights gets them",
            source=folder,
            detail=", ".join(missing),
        )
    return found


def _find_dataset(roots: Iterable[Path], part: TaskPart) -> Path | None:
    """Return the folder of a data set: by its name, or else the one with its number."""
    for root in roots:
        if (root / part.folder).is_dir():
            return root / part.folder
        alike = sorted(root.glob(f"Dataset{part.dataset:03d}_*"))
        folders = [path for path in alike if path.is_dir()]
        if len(folders) == 1:
            return folders[0]
    return None
