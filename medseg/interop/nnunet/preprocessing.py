"""nnU-Net's preprocessing and sliding window as a bundle states them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medseg.errors import DatasetError, MedsegError
from medseg.interop.nnunet.plans import REORIENTING_READERS, NnunetPlans
from medseg.interop.nnunet.plans_file import (
    DEFAULT_RESAMPLING,
    Intensities,
    Resampling,
)

Fields = dict[str, Any]

READERS = ("SimpleITKIO", "NibabelIO", *REORIENTING_READERS)
"""nnU-Net's readers of volumes that say where voxels lie."""

_CT, _ZSCORE, _NONE = (
    "CTNormalization",
    "ZScoreNormalization",
    "NoNormalization",
)
_RESCALE, _RGB = "RescaleTo01Normalization", "RGBTo01Normalization"
SCHEMES = (_CT, _ZSCORE, _NONE, _RESCALE, _RGB)
"""nnU-Net's normalisations that a bundle can state."""
_ANISOTROPY = 3.0
"""From which ratio on nnU-Net resamples the coarse axis by itself (ANISO_THRESHOLD)."""
_ANY_ANISOTROPY = 1.000001
_LEAST_STD = 1e-8


def describe_preprocessing(plans: NnunetPlans) -> Fields:
    """Return the section ``preprocessing`` that does what nnU-Net does.

    Raises:
        MedsegError: If medseg cannot do it; names what.
    """
    unknown = list(_find_unknown(plans))
    if unknown:
        raise MedsegError(
            "medseg cannot prepare scans as these plans ask for",
            source=plans.file,
            detail="; ".join(unknown),
        )
    count = len(plans.configuration.normalization_schemes)
    intensity = [
        describe_normalisation(plans, channel) for channel in range(count)
    ]
    return {**describe_geometry(plans), "intensity": tuple(intensity)}


def describe_geometry(plans: NnunetPlans) -> Fields:
    """Return what the section ``preprocessing`` says besides intensities."""
    configuration = plans.configuration
    spacing: list[float | None] = [*configuration.spacing]
    if plans.dims == 2:
        spacing.append(None)
    data = configuration.resampling_fn_data_kwargs
    return {
        "axes": plans.network_axes,
        "spacing_mm": tuple(spacing),
        "resampling": {
            "interpolation": "cubic" if data.order == 3 else "linear",
            "grid": "extent",
            "coarse_axis_ratio": _get_ratio(data),
        },
        "normalise": "before_resampling",
        "crop_nonzero": True,
        "padding": "zero",
    }


def describe_windows() -> Fields:
    """Return the section ``inference`` of nnU-Net's sliding window, without its flips."""
    return {
        "overlap": 0.5,
        "window_steps": "even",
        "window_weights": "nnunet",
        "keep_largest": (),
    }


def describe_normalisation(plans: NnunetPlans, channel: int) -> Fields:
    """Return how one channel is normalised.

    Raises:
        DatasetError: If the plans lack what it needs.
    """
    scheme = plans.configuration.normalization_schemes[channel]
    masks = plans.configuration.use_mask_for_norm
    is_masked = channel < len(masks) and masks[channel]
    if scheme == _CT:
        return _describe_ct(plans, channel)
    if scheme == _NONE:
        return {"kind": "none"}
    if scheme == _RESCALE:
        return {"kind": "minmax"}
    if scheme == _RGB:
        window = {"low": 0.0, "high": 255.0, "mean": 0.0, "std": 255.0}
        return {"kind": "window", **window, "clip": False}
    return {"kind": "zscore", "nonzero": "filled" if is_masked else False}


def _describe_ct(plans: NnunetPlans, channel: int) -> Fields:
    """Return the window that is exactly nnU-Net's CTNormalization."""
    intensities = plans.intensities.get(channel)
    if intensities is None:
        raise DatasetError(
            f"channel {channel} has CTNormalization, but "
            "foreground_intensity_properties_per_channel says nothing about it",
            source=plans.file,
        )
    if _is_constant(intensities):
        raise DatasetError(
            f"channel {channel} has the same intensity everywhere inside the labels "
            f"({intensities.mean:g}), which cannot be CT; correct the data, and plan again",
            source=plans.file,
        )
    return {
        "kind": "window",
        "low": intensities.percentile_00_5,
        "high": intensities.percentile_99_5,
        "mean": intensities.mean,
        "std": max(intensities.std, _LEAST_STD),
    }


def _is_constant(intensities: Intensities) -> bool:
    if intensities.std == 0:
        return True
    return intensities.percentile_00_5 >= intensities.percentile_99_5


def _find_unknown(plans: NnunetPlans) -> Iterator[str]:
    configuration = plans.configuration
    if plans.reader not in READERS:
        known = ", ".join(READERS)
        yield f"the reader {plans.reader or 'is not named'}; known: {known}"
    if configuration.preprocessor_name != "DefaultPreprocessor":
        yield f"the preprocessor {configuration.preprocessor_name}"
    if plans.label_manager != "LabelManager":
        yield f"the label manager {plans.label_manager}"
    for scheme in configuration.normalization_schemes:
        if scheme not in SCHEMES:
            yield f"the normalisation {scheme}; known: {', '.join(SCHEMES)}"
    data = configuration.resampling_fn_data_kwargs
    scores = configuration.resampling_fn_probabilities_kwargs
    yield from _find_unknown_resampling(
        configuration.resampling_fn_data, data, (1, 3)
    )
    yield from _find_unknown_resampling(
        configuration.resampling_fn_probabilities, scores, (1,)
    )
    if data.force_separate_z != scores.force_separate_z:
        yield "force_separate_z, which differs between images and scores"


def _find_unknown_resampling(
    name: str, arguments: Resampling, orders: tuple[int, ...]
) -> Iterator[str]:
    if name != DEFAULT_RESAMPLING:
        yield f"the resampling {name}; known: {DEFAULT_RESAMPLING}"
    if arguments.order not in orders:
        yield f"resampling of order {arguments.order}; known: {orders}"
    extra = arguments.model_extra or {}
    changed = [name for name, value in extra.items() if value is not None]
    if arguments.order_z or arguments.is_seg:
        changed.append("order_z" if arguments.order_z else "is_seg")
    if set(changed) - {"separate_z_anisotropy_threshold"}:
        yield f"the arguments {', '.join(changed)} of {name}"


def _get_ratio(arguments: Resampling) -> float | None:
    if arguments.force_separate_z is False:
        return None
    if arguments.force_separate_z:
        return _ANY_ANISOTROPY
    stated = (arguments.model_extra or {}).get(
        "separate_z_anisotropy_threshold"
    )
    return float(stated) if isinstance(stated, int | float) else _ANISOTROPY
