"""The bundle's preprocessing as one MONAI chain.

The chain is stated once, as data. Training and inference build it from here, and the exported
MONAI Bundle carries the same list as JSON, so the three cannot differ. What other software does
and stock MONAI does not is left to ``grid`` and ``network_input``; ``departures`` names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from medseg.bundle.spec import (
    FROM_0_TO_1,
    BundleSpec,
    Intensity,
    IntensitySequence,
    MinMax,
    NoNormalisation,
    PreprocessingSpec,
    Squash,
    Window,
    ZScore,
)

if TYPE_CHECKING:
    from monai.transforms import Compose

Step = dict[str, Any]
"""One transform as MONAI's configs write it: its class under ``_target_``, and its arguments."""

IMAGE, LABEL = "image", "label"

_AS_STORED = (0, 1, 2)
LEAST_DEVIATION = 1e-8
"""Of a channel that is constant."""


@dataclass(frozen=True, slots=True)
class AboveThreshold:
    """Tells which voxels are above a threshold; data for a config, a callable for a chain.

    Attributes:
        threshold: In the scan's unit; a voxel that equals it is not above it.
    """

    threshold: float

    def __call__(self, image: Any) -> Any:
        """Return booleans of the shape of the image, a tensor or an array."""
        return image > self.threshold

    @property
    def expression(self) -> str:
        """The same as a MONAI config expression; ``threshold`` is a number, never text."""
        return f"$lambda image: image > {float(self.threshold)!r}"


@dataclass(frozen=True, slots=True)
class Nonzero:
    """Tells which voxels are not 0; data for a config, a callable for a chain."""

    expression: ClassVar[str] = "$lambda image: image != 0"

    def __call__(self, image: Any) -> Any:
        """Return booleans of the shape of the image, a tensor or an array."""
        return image != 0


Selection = AboveThreshold | Nonzero
"""What tells which voxels a bundle looks at."""


def choose_selection(prep: PreprocessingSpec) -> Selection | None:
    """Return what tells which voxels are looked at; ``None`` for all."""
    if prep.crop_above is not None:
        return AboveThreshold(prep.crop_above)
    return Nonzero() if prep.crop_nonzero else None


@dataclass(frozen=True, slots=True)
class TanhCurve:
    """Bends intensities by a tanh; data for a config, a callable for a chain.

    Attributes:
        scale: The limit of its values.
    """

    scale: float

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return ``scale * tanh(image / scale)``."""
        return self.scale * torch.tanh(image / self.scale)

    @property
    def expression(self) -> str:
        """The same as a MONAI config expression; ``scale`` is a number, never text."""
        scale = repr(float(self.scale))
        return f"$lambda image: {scale} * torch.tanh(image / {scale})"


@dataclass(frozen=True, slots=True)
class FromLowest:
    """Brings each channel's lowest intensity to 0 and its deviation to 1; data, and a callable."""

    expression: ClassVar[str] = (
        "$lambda image: (image - image.flatten(1).amin(1)[:, None, None, None]) / "
        "image.flatten(1).std(1).clamp_min(1e-8)[:, None, None, None]"
    )

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return ``(image - lowest) / deviation`` of ``(channels, i, j, k)``."""
        flat = image.flatten(1)
        lowest = flat.amin(1)[:, None, None, None]
        deviation = flat.std(1).clamp_min(LEAST_DEVIATION)
        return (image - lowest) / deviation[:, None, None, None]


def preprocessing_steps(
    spec: BundleSpec, keys: Sequence[str] = (IMAGE,)
) -> list[Step]:
    """State the chain that turns a scan into the network's input.

    It is exact where ``find_departures`` finds nothing, and near to the bundle's where stock MONAI
    has nothing nearer.

    Args:
        spec: The bundle.
        keys: ``image``, or ``image`` and ``label``; a label is moved with its image by nearest
            neighbour and its values are untouched.

    Returns:
        The transforms in order. Input and output are ``(channels, i, j, k)``; the output lies
        on the network's grid (its axes, ``spacing_mm``), normalised.
    """
    keys = list(keys)
    prep = spec.preprocessing
    placed = _orientation_steps(prep, keys)
    if prep.crop_on == "scan":
        placed += _crop_steps(prep, keys)
    spaced = _spacing_steps(prep, keys)
    cropped: list[Step] = []
    if prep.crop_on == "input":
        cropped = _crop_steps(prep, keys)
    normalised = normalisation_steps(spec)
    turned = turning_steps(prep, keys)
    if prep.normalise == "before_resampling":
        return [*placed, *normalised, *spaced, *cropped, *turned]
    return [*placed, *spaced, *normalised, *cropped, *turned]


def turning_steps(prep: PreprocessingSpec, keys: Sequence[str]) -> list[Step]:
    """State how stored axes come into the network's order; empty where they are in it."""
    order = prep.stored_order
    if order is None or order == _AS_STORED:
        return []
    indices = [0, *(1 + axis for axis in order)]
    return [{"_target_": "Transposed", "keys": list(keys), "indices": indices}]


def _orientation_steps(prep: PreprocessingSpec, keys: list[str]) -> list[Step]:
    if prep.input == "picture" or prep.stored_order is not None:
        return []
    return [
        {
            "_target_": "Orientationd",
            "keys": keys,
            "axcodes": prep.axes,
            "labels": None,
        }
    ]


def _crop_steps(prep: PreprocessingSpec, keys: list[str]) -> list[Step]:
    select = choose_selection(prep)
    if select is None:
        return []
    return [
        {
            "_target_": "CropForegroundd",
            "keys": keys,
            "source_key": IMAGE,
            "select_fn": select,
            "margin": prep.crop_margin,
            "allow_smaller": True,
        }
    ]


def _spacing_steps(prep: PreprocessingSpec, keys: list[str]) -> list[Step]:
    if prep.spacing_mm is None:
        return []
    along = prep.spacing_mm
    if prep.stored_order is not None:
        along = tuple(along[prep.stored_order.index(axis)] for axis in range(3))
    # MONAI keeps an axis' own spacing where the wanted one is not positive.
    wanted = [-1.0 if mm is None else mm for mm in along]
    step: Step = {
        "_target_": "Spacingd",
        "keys": keys,
        "pixdim": wanted,
        "mode": ["bilinear", "nearest"][: len(keys)],
        "padding_mode": "border",
    }
    tolerance = prep.resampling.tolerance
    if tolerance:
        step["min_pixdim"] = _scale_spacing(along, 1 - tolerance)
        step["max_pixdim"] = _scale_spacing(along, 1 + tolerance)
    return [step]


def _scale_spacing(
    spacing: Sequence[float | None], factor: float
) -> list[float | None]:
    """Return the limits of a voxel size; MONAI sets none where there is none."""
    return [None if mm is None else factor * mm for mm in spacing]


def normalisation_steps(spec: BundleSpec) -> list[Step]:
    """State how all channels of an image are normalised."""
    intensities = spec.intensities
    if len(set(intensities)) == 1:
        return steps_of_intensity(intensities[0], IMAGE)
    # MONAI normalises all channels of a key alike: where they differ, each gets a key.
    postfixes = [f"channel{position}" for position in range(len(intensities))]
    keys = [f"{IMAGE}_{postfix}" for postfix in postfixes]
    steps: list[Step] = [
        {
            "_target_": "SplitDimd",
            "keys": IMAGE,
            "output_postfixes": postfixes,
            "dim": 0,
            "keepdim": True,
        }
    ]
    for intensity, key in zip(intensities, keys, strict=True):
        steps.extend(steps_of_intensity(intensity, key))
    steps.append(
        {"_target_": "ConcatItemsd", "keys": keys, "name": IMAGE, "dim": 0}
    )
    steps.append({"_target_": "DeleteItemsd", "keys": keys})
    return steps


def steps_of_intensity(intensity: Intensity, key: str) -> list[Step]:
    """State one way to normalise, for the channels under one key."""
    match intensity:
        case Window():
            return [_window_step(intensity, key)]
        case MinMax():
            return [_minmax_step(intensity, key)]
        case ZScore():
            return _zscore_steps(intensity, key)
        case Squash():
            return [_squash_step(intensity, key)]
        case NoNormalisation():
            return []
        case IntensitySequence():
            steps = []
            for part in intensity.steps:
                steps.extend(steps_of_intensity(part, key))
            return steps
    raise TypeError(f"no chain for {intensity!r}")


def _window_step(window: Window, key: str) -> Step:
    low, high = window.range
    return {
        "_target_": "ScaleIntensityRanged",
        "keys": key,
        "a_min": window.low,
        "a_max": window.high,
        "b_min": low,
        "b_max": high,
        "clip": window.clip,
    }


def _minmax_step(minmax: MinMax, key: str) -> Step:
    step = {"_target_": "ScaleIntensityd", "keys": key, "channel_wise": True}
    if minmax.to == FROM_0_TO_1:
        return step
    low, high = minmax.to
    return {**step, "minv": low, "maxv": high}


def _squash_step(squash: Squash, key: str) -> Step:
    if squash.curve == "sigmoid":
        return {"_target_": "Activationsd", "keys": key, "sigmoid": True}
    return {
        "_target_": "Lambdad",
        "keys": key,
        "func": TanhCurve(squash.scale),
    }


def _zscore_steps(intensity: ZScore, key: str) -> list[Step]:
    normalise = {
        "_target_": "NormalizeIntensityd",
        "keys": key,
        "nonzero": bool(intensity.nonzero),
        "channel_wise": True,
    }
    if intensity.subtract == "lowest":
        return [{"_target_": "Lambdad", "keys": key, "func": FromLowest()}]
    if intensity.clip_percentiles is None:
        return [normalise]
    lower, upper = intensity.clip_percentiles
    clip = {
        "_target_": "ClipIntensityPercentilesd",
        "keys": key,
        "lower": 100 * lower,
        "upper": 100 * upper,
        "channel_wise": True,
    }
    return [clip, normalise]


def get_padding_value(spec: BundleSpec) -> float:
    """Return what lies outside a scan, as the network sees it: air in a window, else the mean."""
    if spec.preprocessing.padding == "zero":
        return 0.0
    first, *others = set(spec.intensities)
    if isinstance(first, Window) and not others:
        return first.range[0]
    return 0.0


def build_chain(steps: Sequence[Step]) -> Compose:
    """Build MONAI's transforms.

    Args:
        steps: As ``preprocessing_steps`` states them; ``_target_`` names a class of
            ``monai.transforms`` and comes from this module, never from a bundle.
    """
    import monai.transforms

    transforms = []
    for step in steps:
        arguments = dict(step)
        transform_class = getattr(monai.transforms, arguments.pop("_target_"))
        transforms.append(transform_class(**arguments))
    return monai.transforms.Compose(transforms)
