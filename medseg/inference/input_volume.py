"""What a scan may be in Python → a volume with a bundle's channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy.typing as npt

from medseg.bundle.spec import ChannelSpec
from medseg.datasets.case_folders import find_case_folder, read_case
from medseg.datasets.channel_ways import fit_channels
from medseg.io.adapters import as_volume
from medseg.io.volume_like import SeriesChoice, VolumeLike
from medseg.volume import Volume


def open_volume(
    image: VolumeLike,
    channels: Sequence[ChannelSpec],
    *,
    spacing: Sequence[float] | None = None,
    affine: npt.ArrayLike | None = None,
    series: SeriesChoice = None,
) -> Volume:
    """Open what ``Segmenter.segment`` takes.

    Args:
        image: What ``as_volume`` takes, or the folder of a case.
        channels: The bundle's.
        spacing: As ``as_volume`` takes it.
        affine: As ``as_volume`` takes it.
        series: As ``as_volume`` takes it.

    Returns:
        float32, shape ``(channels, i, j, k)``.

    Raises:
        ScanError: If it cannot be read, or does not have these channels.
        GeometryError: If its position in the patient is not certain.
    """
    folder = find_case_folder(image)
    if folder is not None and len(channels) > 1 and series is None:
        return read_case(folder, channels)
    spare = 0
    if isinstance(image, Mapping):
        # It knows how data sets name channels, and takes long to import.
        from medseg.datasets.named_channels import order_channels

        names = [channel.name for channel in channels]
        spare = len(image) - len(names)
        image = order_channels(image, names)
    volume = as_volume(image, spacing=spacing, affine=affine, series=series)
    volume = fit_channels(volume, channels)
    if spare > 0:
        note = "more images were given than the bundle has channels; the others are not used"
        volume = replace(volume, warnings=(*volume.warnings, note))
    return volume
