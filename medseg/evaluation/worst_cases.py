"""The cases that were segmented worst, as pictures for the evaluation page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import MedsegError
from medseg.io import read_image
from medseg.metrics.metrics import CaseScores
from medseg.names import split_suffix
from medseg.plots.thumbnails import draw_comparison
from medseg.volume import Array, Volume

MOST_SHOWN = 6


@dataclass(frozen=True, slots=True)
class ComparedCase:
    """One case, read again.

    Attributes:
        prediction: Label indices ``(i, j, k)``.
        reference: The same.
        grid: Where they lie.
        scan: The image below, if it was found.
    """

    prediction: Array
    reference: Array
    grid: Volume
    scan: Volume | None = None


@dataclass(frozen=True, slots=True)
class CasePicture:
    """The picture of one case.

    Attributes:
        scores: Of the case.
        picture: A WebP file.
        has_image: Whether the scan lies below the outlines.
    """

    scores: CaseScores
    picture: bytes
    has_image: bool


def draw_worst_cases(
    cases: Sequence[CaseScores], read: Callable[[str], ComparedCase]
) -> list[CasePicture]:
    """Draw the cases with the lowest mean Dice, the worst first; perfect ones are left out.

    Args:
        cases: All cases.
        read: Reads a case by its name.
    """
    pictures = []
    for scores in _choose_worst(cases):
        try:
            case = read(scores.case)
        except MedsegError:
            continue  # it was read before; whatever happened since, its scores stand
        volume = case.grid.grid if case.scan is None else case.scan
        picture = draw_comparison(volume, case.reference, case.prediction)
        pictures.append(CasePicture(scores, picture, case.scan is not None))
    return pictures


def _choose_worst(cases: Sequence[CaseScores]) -> list[CaseScores]:
    scored = [case for case in cases if case.mean_dice < 1]
    scored.sort(key=lambda case: (case.mean_dice, case.case))
    return scored[:MOST_SHOWN]


def find_scan(reference: Path, grid: Volume) -> Volume | None:
    """Find and read the scan of a reference where data sets have it.

    ``labelsTr/a.nii.gz`` belongs to ``imagesTr/a.nii.gz`` or ``imagesTr/a_0000.nii.gz``.

    Args:
        reference: The label map.
        grid: Where it lies: the scan must lie there, too.
    """
    folder = reference.parent
    if "labels" not in folder.name:
        return None
    images = folder.with_name(folder.name.replace("labels", "images"))
    stem, ending = split_suffix(reference.name)
    for name in (reference.name, f"{stem}_0000{ending}"):
        file = images / name
        if not file.is_file():
            continue
        try:
            scan = read_image((file,))
            return grid.reorder_to_grid(scan, "the reference and its scan")
        except MedsegError:
            return None  # a picture without its scan still shows the outlines
    return None
