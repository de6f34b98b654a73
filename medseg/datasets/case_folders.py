"""The folder of one case, whose channels are files or DICOM series of their own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from medseg._support.files import is_folder
from medseg.bundle.spec import ChannelSpec
from medseg.errors import DatasetError, ScanError
from medseg.volume import Volume


def find_case_folder(image: object) -> Path | None:
    """Return the folder that somebody gives as a scan; ``None`` where it is none."""
    if not isinstance(image, str | os.PathLike):
        return None
    path = Path(os.fspath(image))
    return path if is_folder(path) else None


def read_case(folder: Path, channels: Sequence[ChannelSpec]) -> Volume:
    """Read the only case in a folder, its channels found as ``medseg segment`` finds them.

    Args:
        folder: The folder.
        channels: The bundle's.

    Returns:
        float32, shape ``(channels, i, j, k)``.

    Raises:
        ScanError: If it holds no case, several, or one that lacks a channel.
        GeometryError: If the channels do not lie on one grid.
    """
    # What looks for files takes long to import, and most scans are none of a folder.
    from medseg.datasets.integrity import read_scan
    from medseg.datasets.scans import find_scans

    try:
        found = find_scans(folder, len(channels), channel_specs=channels)
    except DatasetError as error:
        raise ScanError(
            error.message, source=folder, detail=error.detail
        ) from error
    if len(found.scans) == 1 and not found.left_out:
        return read_scan(found.scans[0], channels)
    for entry in found.left_out:
        raise ScanError(entry.reason, source=folder, detail=entry.detail)
    raise ScanError(
        f"holds {len(found.scans)} scans; give the folder of one case, or its files by channel",
        source=folder,
    )
