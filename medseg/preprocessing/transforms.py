"""The bundle's preprocessing as one MONAI chain, and its inverse.

The chain is stated once, as data. Training and inference build it from here, and the exported
MONAI Bundle carries the same list as JSON, so the three cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import monai.transforms
import numpy as np
import torch
from monai.data import MetaTensor

from medseg.bundle.spec import BundleSpec, Intensity, MinMax, Window, ZScore
from medseg.errors import ScanError
from medseg.volume import Array, Volume

Step = dict[str, Any]
"""One transform as MONAI's configs write it: its class under ``_target_``, and its arguments."""

IMAGE, LABEL = "image", "label"


@dataclass(frozen=True, slots=True)
class AboveThreshold:
    """Tells which voxels are above a threshold; data for a config, a callable for a chain."""

    threshold: float

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return a boolean tensor of the image's shape."""
        return image > self.threshold

    @property
    def expression(self) -> str:
        """The same as a MONAI config expression; ``threshold`` is a number, never text."""
        return f"$lambda image: image > {float(self.threshold)!r}"


def preprocessing_steps(spec: BundleSpec, keys: Sequence[str] = (IMAGE,)) -> list[Step]:
    """State the chain that turns a scan into the network's input.

    Args:
        spec: The bundle.
        keys: ``image``, or ``image`` and ``label``; a label is moved with its image by nearest
            neighbour and its values are untouched.

    Returns:
        The transforms in order. Input and output are ``(channels, i, j, k)``; the output lies
        on the network's grid (RAS-oriented, ``spacing_mm``), normalised.
    """
    keys = list(keys)
    steps: list[Step] = []
    prep = spec.preprocessing
    if prep.input == "volume":
        steps.append({"_target_": "Orientationd", "keys": keys, "axcodes": "RAS", "labels": None})
    if prep.crop_above is not None:
        steps.append(
            {
                "_target_": "CropForegroundd",
                "keys": keys,
                "source_key": IMAGE,
                "select_fn": AboveThreshold(prep.crop_above),
                "margin": 0,
                "allow_smaller": True,
            }
        )
    if prep.spacing_mm is not None:
        steps.append(
            {
                "_target_": "Spacingd",
                "keys": keys,
                # MONAI keeps an axis' own spacing where the wanted one is not positive.
                "pixdim": [-1.0 if mm is None else mm for mm in prep.spacing_mm],
                "mode": ["bilinear", "nearest"][: len(keys)],
                "padding_mode": "border",
            }
        )
    return steps + _normalisation_steps(spec)


def _normalisation_steps(spec: BundleSpec) -> list[Step]:
    intensities = spec.intensities
    if len(set(intensities)) == 1:
        return _intensity_steps(intensities[0], IMAGE)
    postfixes = [f"channel{position}" for position in range(len(intensities))]
    keys = [f"{IMAGE}_{postfix}" for postfix in postfixes]
    split = {
        "_target_": "SplitDimd",
        "keys": IMAGE,
        "output_postfixes": postfixes,
        "dim": 0,
        "keepdim": True,
    }
    each = [
        step
        for it, key in zip(intensities, keys, strict=True)
        for step in _intensity_steps(it, key)
    ]
    return [
        split,
        *each,
        {"_target_": "ConcatItemsd", "keys": keys, "name": IMAGE, "dim": 0},
        {"_target_": "DeleteItemsd", "keys": keys},
    ]


def _intensity_steps(intensity: Intensity, key: str) -> list[Step]:
    match intensity:
        case Window():
            low, high = intensity.range
            scale = {"a_min": intensity.low, "a_max": intensity.high, "b_min": low, "b_max": high}
            return [{"_target_": "ScaleIntensityRanged", "keys": key, **scale, "clip": True}]
        case MinMax():
            return [{"_target_": "ScaleIntensityd", "keys": key, "channel_wise": True}]
        case ZScore():
            normalise = {
                "_target_": "NormalizeIntensityd",
                "keys": key,
                "nonzero": intensity.nonzero,
                "channel_wise": True,
            }
            if intensity.clip_percentiles is None:
                return [normalise]
            lower, upper = (100 * quantile for quantile in intensity.clip_percentiles)
            clip = {
                "_target_": "ClipIntensityPercentilesd",
                "keys": key,
                "lower": lower,
                "upper": upper,
                "channel_wise": True,
            }
            return [clip, normalise]
    raise TypeError(f"no chain for {intensity!r}")


def get_padding_value(spec: BundleSpec) -> float:
    """Return what lies outside a scan, as the network sees it: air in a window, else the mean."""
    intensities = set(spec.intensities)
    if len(intensities) == 1 and isinstance(window := next(iter(intensities)), Window):
        return window.range[0]
    return 0.0


class Preprocessing:
    """The chain as something to call, with its way back.

    Args:
        spec: The bundle.
        with_label: Whether a label map travels along.
    """

    def __init__(self, spec: BundleSpec, with_label: bool = False) -> None:
        keys = (IMAGE, LABEL) if with_label else (IMAGE,)
        self._crop_above = spec.preprocessing.crop_above
        self._chain = monai.transforms.Compose(
            [_build(step) for step in preprocessing_steps(spec, keys)]
        )
        self._invert = monai.transforms.Invertd(
            keys="pred",
            transform=self._chain,
            orig_keys=IMAGE,
            nearest_interp=False,
            to_tensor=True,
        )

    def __call__(self, volume: Volume, label: Array | None = None) -> dict[str, MetaTensor]:
        """Bring a scan (and its label map) onto the network's grid.

        Args:
            volume: The scan, ``(channels, i, j, k)``.
            label: Label indices on the scan's grid, ``(i, j, k)``.

        Returns:
            ``image`` float32 ``(channels, x, y, z)`` and, if given, ``label`` ``(1, x, y, z)``.

        Raises:
            ScanError: If the scan cannot be brought onto the grid, or no voxel is above
                ``crop_above``.
        """
        self._refuse_empty(volume)
        data = {IMAGE: _meta_tensor(volume.array, volume)}
        if label is not None:
            data[LABEL] = _meta_tensor(label[None], volume)
        try:
            return self._chain(data)  # type: ignore[no-any-return]
        except (RuntimeError, ValueError) as error:
            # MONAI wraps whatever went wrong in a RuntimeError naming the transform.
            cause = error.__cause__ or error
            raise ScanError(
                f"{volume.source or 'scan'} of shape {volume.shape} and spacing "
                f"{tuple(round(mm, 3) for mm in volume.spacing)} mm cannot be preprocessed: {cause}"
            ) from error

    def _refuse_empty(self, volume: Volume) -> None:
        threshold = self._crop_above
        if threshold is not None and not any(
            (channel > threshold).any() for channel in volume.array
        ):
            raise ScanError(
                f"{volume.source or 'scan'}: no voxel is above {threshold:g}, and the bundle looks "
                "only at what is (preprocessing.crop_above); is the scan empty, or in another unit?"
            )

    def invert(self, prediction: torch.Tensor, image: MetaTensor) -> torch.Tensor:
        """Bring class scores from the network's grid back to the scan's, by linear interpolation.

        Args:
            prediction: Scores, ``(classes, x, y, z)``, on the grid of ``image``.
            image: What this chain made of the scan.

        Returns:
            Scores on the scan's own grid, ``(classes, i, j, k)``. Voxels that preprocessing cut
            away score 0 for every class.
        """
        if not image.applied_operations:
            return prediction  # a picture was never moved
        on_scan = self._invert({"pred": MetaTensor(prediction, meta=image.meta), IMAGE: image})
        return on_scan["pred"].as_tensor()  # type: ignore[no-any-return]


def _build(step: Step) -> Any:
    arguments = {name: value for name, value in step.items() if name != "_target_"}
    return getattr(monai.transforms, step["_target_"])(**arguments)


def _meta_tensor(array: Array, volume: Volume) -> MetaTensor:
    # A copy, because some of MONAI's transforms change their input in place.
    tensor = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    return MetaTensor(tensor, affine=torch.as_tensor(np.array(volume.affine)))
