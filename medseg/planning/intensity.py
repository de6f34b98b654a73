"""Chooses how each channel is normalised, from the intensities there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg.planning.constraints import Notes
from medseg.planning.fingerprint import Fingerprint

_MAX_NONZERO_SHARE = 0.75
"""Below this share of the image in the box of its non-zero voxels, the rest is cropped."""
_OUTLIER_FACTOR = 3.0
"""A maximum this many times above the 99.5 % quantile is an outlier."""
_MAX_OUTLIER_SHARE = 0.05
"""Share of images with outliers from which on intensities are clipped."""
_WIDE_RANGE = 10.0
"""From this ratio of the images' scales on, the notes say so."""

_LOW, _HIGH = 0.005, 0.995


def choose_intensity(
    fingerprint: Fingerprint, channels: Sequence[dict[str, Any]], notes: Notes
) -> dict[str, Any]:
    """Return the fields of ``preprocessing`` that concern intensities.

    Args:
        fingerprint: Of the data set.
        channels: As the bundle describes them.
        notes: Takes the reasons.
    """
    shares = [case.nonzero_share for case in fingerprint.typical]
    crop = max(shares) < _MAX_NONZERO_SHARE
    schemes = []
    for index, channel in enumerate(channels):
        modality = channel.get("modality", "OT")
        scheme, reason = _choose_scheme(fingerprint, index, modality, crop)
        schemes.append(scheme)
        field = "preprocessing.intensity"
        if len(channels) > 1:
            field += f".{index}"
        notes[field] = reason
    if fingerprint.apart:
        notes["data.root"] = (
            f"Voxel sizes and intensities are those of {len(fingerprint.typical)} cases; "
            f"{len(fingerprint.apart)} more lie apart from them and are left out of the statistics"
        )
    first, *others = schemes
    all_alike = all(scheme == first for scheme in others)
    fields: dict[str, Any] = {"intensity": first if all_alike else schemes}
    if crop:
        fields["crop_above"] = 0
        notes["preprocessing.crop_above"] = (
            "The surroundings are black: the bounding box of non-zero voxels covers "
            f"{float(np.median(shares)):.0%} of a typical image and every label"
        )
    return fields


def _choose_scheme(
    fingerprint: Fingerprint, channel: int, modality: str, crop: bool
) -> tuple[dict[str, Any], str]:
    """Return how a channel is normalised, and the reason."""
    if modality == "CT":
        intensities = fingerprint.collect_foreground_intensities(channel)
        if intensities.size and np.ptp(intensities) > 0:
            return _choose_window(intensities)
    return _choose_zscore(fingerprint, channel, modality, crop)


def _choose_window(
    intensities: np.typing.NDArray[np.float64],
) -> tuple[dict[str, Any], str]:
    """Return nnU-Net's normalisation of CT: one window for all scans."""
    low, high = (
        float(value) for value in np.quantile(intensities, (_LOW, _HIGH))
    )
    clipped = intensities.clip(low, high)
    scheme = {
        "kind": "window",
        "low": round(low, 1),
        "high": round(high, 1),
        "mean": round(float(clipped.mean()), 2),
        "std": round(max(float(clipped.std()), 1e-3), 2),
    }
    reason = (
        f"CT: clipped to {low:.0f} to {high:.0f}, which holds 99 % of the labelled voxels, then "
        "shifted and scaled by their mean and standard deviation; HU mean the same in every scan"
    )
    return scheme, reason


def _choose_zscore(
    fingerprint: Fingerprint, channel: int, modality: str, crop: bool
) -> tuple[dict[str, Any], str]:
    """Return normalisation by each image's own mean and standard deviation."""
    scheme: dict[str, Any] = {"kind": "zscore"}
    reasons = ["Each image by its own mean and standard deviation"]
    ratio = _compute_scale_ratio(fingerprint, channel)
    if ratio > _WIDE_RANGE:
        reasons.append(f"the images' scales differ by a factor of {ratio:,.0f}")
    if crop:
        scheme["nonzero"] = True
        reasons.append(
            "over non-zero voxels, because the black around them is cropped"
        )
    share = _compute_outlier_share(fingerprint, channel)
    # The brightest voxels of PET are not outliers but what is looked for.
    if share > _MAX_OUTLIER_SHARE and modality != "PT":
        scheme["clip_percentiles"] = [_LOW, _HIGH]
        reasons.append(
            f"the outermost 0.5 % clipped first, because {share:.0%} of the images have "
            f"voxels more than {_OUTLIER_FACTOR:g} times as bright as that"
        )
    return scheme, "; ".join(reasons)


def _compute_scale_ratio(fingerprint: Fingerprint, channel: int) -> float:
    """Return how many times brighter the brightest image is than the darkest."""
    highs = [
        case.channels[channel].percentile_99_5 for case in fingerprint.typical
    ]
    scales = [high for high in highs if high > 0]
    if not scales:
        return 1.0
    return float(max(scales) / min(scales))


def _compute_outlier_share(fingerprint: Fingerprint, channel: int) -> float:
    """Return the share of images with a few voxels that are far brighter than all others."""
    with_outliers = 0
    for case in fingerprint.typical:
        statistics = case.channels[channel]
        high = statistics.percentile_99_5
        with_outliers += statistics.maximum > _OUTLIER_FACTOR * high > 0
    return with_outliers / len(fingerprint.typical)
