"""Which of several DICOM series is meant: by its number in a list, or by its UID."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg._support.files import is_folder
from medseg.errors import MedsegError, ScanError
from medseg.io import find_series, group_series, read_image
from medseg.io.dicom.geometry import measure_distances
from medseg.io.dicom.series import Series
from medseg.io.dicom.volume import SeveralSeriesError, SeveralVolumesError
from medseg.io.volume_like import SeriesChoice
from medseg.volume import Volume

_MOST_LISTED = 20
_MODALITY = re.compile(r"[A-Z]{2,3}")


def read_chosen(paths: Sequence[Path], series: SeriesChoice = None) -> Volume:
    """Read an image; where its files hold several DICOM series or volumes, the one that is meant.

    Args:
        paths: A file of any format, a folder of DICOM, or files of DICOM.
        series: Which series; needed where there are several.

    Raises:
        ScanError: As ``read_image``; if there are several and none is chosen, with a list of
            them; or if there is none of this number or UID.
        GeometryError: As ``read_image``.
    """
    if series is None:
        try:
            return read_image(paths)
        except (SeveralSeriesError, SeveralVolumesError) as error:
            raise _make_choice_error(_find(paths), error.source) from error
    chosen = _choose(_find(paths), series, paths[0])
    volume = read_image(chosen.files, volume=chosen.volume)
    return replace(volume, warnings=(*volume.warnings, *chosen.warnings))


def _find(paths: Sequence[Path]) -> list[Series]:
    files = [path for path in paths if not is_folder(path)]
    found, _ = group_series(files)
    for folder in paths:
        if is_folder(folder):
            below, _ = find_series(folder)
            found.extend(below)
    return found


def _choose(found: Sequence[Series], series: int | str, source: Path) -> Series:
    text = str(series).strip()
    matches = [each for each in found if each.uid == text]
    if text.isdecimal() and 0 < int(text) <= len(found):
        matches = [found[int(text) - 1]]
    if len(matches) == 1:
        return matches[0]
    if not found:
        raise ScanError(
            "there is no DICOM series to choose from; leave series out",
            source=source,
        )
    absent = "no series, or several, have the UID that was given; "
    if text.isdecimal():
        absent = f"there is no series number {text}; "
    raise _make_choice_error(found, str(source), absent)


def _make_choice_error(
    found: Sequence[Series], source: str | None, absent: str = ""
) -> MedsegError:
    """Return the error that lists what there is; UIDs and names stand apart from its message.

    Args:
        found: What there is.
        source: Where.
        absent: What was asked for and is not there.
    """
    lines = []
    details = []
    for number, series in enumerate(found[:_MOST_LISTED], start=1):
        lines.append(f"{number}: {_describe(series)}")
        details.append(f"{number}: {series.uid} {series.volume_name}".strip())
    listed = "; ".join(lines)
    more = len(found) - _MOST_LISTED
    if more > 0:
        listed = f"{listed}; and {more} more"
    return ScanError(
        f"{absent}there are {len(found)} DICOM series or volumes, and one is segmented at a time; "
        f"choose it by its number here, as series=1, or its Series Instance UID: {listed}",
        source=source,
        detail="; ".join(details),
    )


def _describe(series: Series) -> str:
    """Say what people know a series by, without a name, a description or a date."""
    modality = series.modality
    if not _MODALITY.fullmatch(modality):
        modality = "unknown modality"
    frames = series.frames
    if not frames:
        return f"{modality}, {len(series.files)} files, some of them damaged"
    first = frames[0]
    between_rows, between_columns = first.spacing
    sizes = [between_columns, between_rows]
    if len(frames) > 1:
        distances = np.sort(measure_distances(frames))
        sizes.append(float(np.median(np.diff(distances))))
    spacing = " × ".join(f"{size:.3g}" for size in sizes)
    return f"{modality}, {len(frames)} slices of {first.columns}×{first.rows}, {spacing} mm"
