"""Whether the intensities of a scan can be what a bundle was trained on: its rules for values."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from medseg.bundle.spec import BundleSpec, ChannelSpec
from medseg.datasets.modalities import normalize_modality
from medseg.errors import ScanError
from medseg.volume import Array, Volume

AIR_HU = (-1100.0, -200.0)
"""Every CT that shows skin, lung or bowel has voxels in this range; what is below pads it."""

DENSE_HU = 800.0
"""Only bone and metal are denser; where nothing is in HU, soft tissue is, too."""

LEAST_SHARE = 1e-3
"""Share of a scan from which on a range of values counts as there: not by a stray voxel."""

MOST_DENSE = 0.05
"""Share of dense voxels from which on values are not in HU."""

_SURELY_HU = -900.0

_MOST_SAMPLES = 1_000_000
"""Voxels looked at for the share of a range."""


def refuse_constant(volume: Volume) -> None:
    """Refuse a scan that shows nothing: there is nothing to segment, and nothing to learn.

    Raises:
        ScanError: If every voxel of each channel has the same value.
    """
    for channel in range(len(volume.array)):
        shown = volume.get_shown(channel)
        if _varies(sample_voxels(shown), shown):
            return
    # Adding zero makes an ordinary zero of a negative one.
    value = float(volume.get_shown(0)[0]) + 0.0
    raise ScanError(
        f"every voxel has the value {value:g}, so there is nothing to segment; check "
        "that the file was written completely"
    )


def _varies(sample: Array, voxels: Array) -> bool:
    # The sample of what varies nearly always does, and is much the faster to look at.
    if sample.min() != sample.max():
        return True
    return bool(voxels.min() != voxels.max())


def check_intensities(volume: Volume, spec: BundleSpec) -> Iterator[str]:
    """Say what is odd about the intensities of a scan's channels.

    Raises:
        ScanError: If it shows nothing.
    """
    refuse_constant(volume)
    for number, channel in enumerate(spec.channels):
        shown = volume.get_shown(number)
        warning = _find_odd_range(channel, shown, volume.array[number])
        if warning:
            yield warning


def _find_odd_range(channel: ChannelSpec, shown: Array, voxels: Array) -> str:
    """Say what is odd about the intensities of a channel, or nothing.

    Args:
        channel: The channel.
        shown: Its voxels but for padding.
        voxels: All of them.
    """
    sample, of_all = sample_channel(shown, voxels)
    if not _varies(sample, shown):
        value = float(shown.flat[0])
        return (
            f"every voxel of the channel {channel.name} has the value {value:g}"
        )
    modality = normalize_modality(channel.modality)
    if modality == "CT":
        return _find_doubt_of_hu(channel, sample, of_all)
    is_hu = _measure_share(sample, -math.inf, _SURELY_HU)
    if modality == "MR" and is_hu >= LEAST_SHARE:
        return (
            f"the channel {channel.name} has values from {shown.min():g}, as CT has them in "
            "air, and the bundle is for MR"
        )
    return ""


def _find_doubt_of_hu(
    channel: ChannelSpec, sample: Array, of_all: Array
) -> str:
    """Say so if a CT does not show air and what is denser, each by more than a stray voxel.

    A scan may be cut out of the round field of view and padded with a value below air. Then the
    padding speaks for the air, unless soft tissue is as dense as bone. Padding that its file
    declares does so, too: a reader makes it air where what is shown is in HU, and only there.

    Args:
        channel: The channel.
        sample: Of its voxels but for padding.
        of_all: Of all of them.
    """
    thinnest, densest = AIR_HU
    air = _measure_share(sample, thinnest, densest)
    air_or_padding = _measure_share(of_all, thinnest, densest)
    padding = _measure_share(sample, -math.inf, thinnest)
    dense = _measure_share(sample, DENSE_HU, math.inf)
    is_padded = padding >= LEAST_SHARE and dense < MOST_DENSE * (1 - padding)
    missing = ""
    if air + padding > 1 - LEAST_SHARE:
        missing = "nothing denser than air"
    elif air_or_padding < LEAST_SHARE and not is_padded:
        missing = "no air"
    if not missing:
        return ""
    # Without its values, so that many scans alike are told in one line.
    return (
        f"the channel {channel.name} shows {missing} ({thinnest:g} to {densest:g} HU); if its "
        "values are not Hounsfield units, the result is wrong"
    )


def sample_channel(shown: Array, voxels: Array) -> tuple[Array, Array]:
    """Return the samples of what a channel shows and of all its voxels, taken once if it can be.

    Args:
        shown: Its voxels but for padding.
        voxels: All of them.
    """
    sample = sample_voxels(shown)
    is_view = np.may_share_memory(shown, voxels)
    if is_view and shown.size == voxels.size:
        return sample, sample
    return sample, sample_voxels(voxels)


def sample_voxels(voxels: Array) -> Array:
    """Return every nth voxel of many, flat: shares and quantiles need no more."""
    # An odd step: an even one would take the same columns of every row.
    step = voxels.size // _MOST_SAMPLES | 1
    # A copy: who looks at it again need not go through the whole scan for it.
    return voxels.ravel(order="K")[::step].copy()


def _measure_share(sample: Array, low: float, high: float) -> float:
    """Return the share of voxels from ``low`` up to ``high``, both included."""
    inside = np.count_nonzero((sample >= low) & (sample <= high))
    return inside / sample.size
