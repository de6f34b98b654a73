"""The bundle's preprocessing as one MONAI chain.

The chain is stated once, as data. Training and inference build it from here, and the exported
MONAI Bundle carries the same list as JSON, so the three cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medseg._support.memory import is_out_of_memory
from medseg.bundle.spec import BundleSpec, Intensity, MinMax, Window, ZScore
from medseg.errors import ScanError
from medseg.padding import Padding
from medseg.preprocessing.normalisation import (
    lower_padding,
    normalise_shown,
    takes_statistics,
)
from medseg.volume import Array, Volume

if TYPE_CHECKING:
    from monai.data import MetaTensor
    from monai.transforms import Compose

Step = dict[str, Any]
"""One transform as MONAI's configs write it: its class under ``_target_``, and its arguments."""

IMAGE, LABEL = "image", "label"
_PADDING = "padding"


@dataclass(frozen=True, slots=True)
class AboveThreshold:
    """Tells which voxels are above a threshold; data for a config, a callable for a chain.

    Attributes:
        threshold: In the scan's unit; a voxel that equals it is not above it.
    """

    threshold: float

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return a boolean tensor of the image's shape."""
        return image > self.threshold

    @property
    def expression(self) -> str:
        """The same as a MONAI config expression; ``threshold`` is a number, never text."""
        return f"$lambda image: image > {float(self.threshold)!r}"


def preprocessing_steps(
    spec: BundleSpec, keys: Sequence[str] = (IMAGE,)
) -> list[Step]:
    """State the chain that turns a scan into the network's input.

    Args:
        spec: The bundle.
        keys: ``image``, or ``image`` and ``label``; a label is moved with its image by nearest
            neighbour and its values are untouched.

    Returns:
        The transforms in order. Input and output are ``(channels, i, j, k)``; the output lies
        on the network's grid (RAS-oriented, ``spacing_mm``), normalised.
    """
    return geometry_steps(spec, keys) + normalisation_steps(spec)


def geometry_steps(spec: BundleSpec, keys: Sequence[str]) -> list[Step]:
    """State the part of the chain that moves voxels."""
    keys = list(keys)
    steps: list[Step] = []
    prep = spec.preprocessing
    if prep.input == "volume":
        steps.append(
            {
                "_target_": "Orientationd",
                "keys": keys,
                "axcodes": "RAS",
                "labels": None,
            }
        )
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
                "pixdim": [
                    -1.0 if mm is None else mm for mm in prep.spacing_mm
                ],
                "mode": [
                    "nearest" if key == LABEL else "bilinear" for key in keys
                ],
                "padding_mode": "border",
            }
        )
    return steps


def normalisation_steps(spec: BundleSpec) -> list[Step]:
    """State the part of the chain that changes values: those of images, not of labels."""
    intensities = spec.intensities
    if len(set(intensities)) == 1:
        return _intensity_steps(intensities[0], IMAGE)
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
        steps.extend(_intensity_steps(intensity, key))
    steps.append(
        {"_target_": "ConcatItemsd", "keys": keys, "name": IMAGE, "dim": 0}
    )
    steps.append({"_target_": "DeleteItemsd", "keys": keys})
    return steps


def _intensity_steps(intensity: Intensity, key: str) -> list[Step]:
    match intensity:
        case Window():
            low, high = intensity.range
            return [
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": key,
                    "a_min": intensity.low,
                    "a_max": intensity.high,
                    "b_min": low,
                    "b_max": high,
                    "clip": True,
                }
            ]
        case MinMax():
            return [
                {
                    "_target_": "ScaleIntensityd",
                    "keys": key,
                    "channel_wise": True,
                }
            ]
        case ZScore():
            return _zscore_steps(intensity, key)
    raise TypeError(f"no chain for {intensity!r}")


def _zscore_steps(intensity: ZScore, key: str) -> list[Step]:
    normalise = {
        "_target_": "NormalizeIntensityd",
        "keys": key,
        "nonzero": intensity.nonzero,
        "channel_wise": True,
    }
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
    first, *others = set(spec.intensities)
    if isinstance(first, Window) and not others:
        return first.range[0]
    return 0.0


class Preprocessing:
    """The chain as something to call.

    Args:
        spec: The bundle.
        with_label: Whether a label map travels along.

    Attributes:
        chain: The MONAI transforms.
    """

    def __init__(self, spec: BundleSpec, with_label: bool = False) -> None:
        keys = (IMAGE, LABEL) if with_label else (IMAGE,)
        self.chain = build_chain(preprocessing_steps(spec, keys))
        # For scans with padding, which all other steps know nothing of.
        self._geometry = build_chain(geometry_steps(spec, (*keys, _PADDING)))
        self._intensities = spec.intensities
        self._takes_statistics = takes_statistics(spec.intensities)
        self._crop_above = spec.preprocessing.crop_above

    def __call__(
        self, volume: Volume, label: Array | None = None
    ) -> dict[str, MetaTensor]:
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
        volume = lower_padding(volume, self._crop_above)
        self._refuse_empty(volume)
        data = {IMAGE: _make_meta_tensor(volume.array, volume)}
        if label is not None:
            data[LABEL] = _make_meta_tensor(label[None], volume)
        try:
            if volume.padding and self._takes_statistics:
                return self._process_padded(data, volume, volume.padding)
            return self.chain(data)  # type: ignore[no-any-return]
        except (MemoryError, RuntimeError, ValueError) as error:
            raise _explain(error, volume) from error

    def _process_padded(
        self,
        data: dict[str, MetaTensor],
        volume: Volume,
        padding: Padding,
    ) -> dict[str, MetaTensor]:
        data[_PADDING] = _make_meta_tensor(padding.get_mask(), volume)
        moved: dict[str, MetaTensor] = self._geometry(data)
        share = moved.pop(_PADDING).as_tensor()
        image = moved[IMAGE].as_tensor()
        normalised = normalise_shown(image, share, self._intensities)
        moved[IMAGE].set_array(normalised)
        return moved

    def _refuse_empty(self, volume: Volume) -> None:
        if self._crop_above is None:
            return
        for channel in volume.array:
            if (channel > self._crop_above).any():
                return
        raise build_empty_scan_error(self._crop_above, volume)


def _explain(error: Exception, volume: Volume) -> ScanError:
    """Return what is wrong with a scan that cannot be brought onto the network's grid."""
    spacing = tuple(round(mm, 3) for mm in volume.spacing)
    scan = f"a scan of shape {volume.shape} and spacing {spacing} mm"
    # MONAI wraps whatever went wrong in a RuntimeError naming the transform.
    cause = error.__cause__ or error
    if is_out_of_memory(cause):
        return ScanError(
            f"{scan} does not fit the memory on the network's grid; check its voxel size, crop "
            "it, or make preprocessing.spacing_mm coarser",
            source=volume.source or None,
        )
    return ScanError(
        f"{scan} cannot be preprocessed",
        source=volume.source or None,
        detail=str(cause),
    )


def build_empty_scan_error(threshold: float, volume: Volume) -> ScanError:
    """Return the error about a scan without any voxel above ``preprocessing.crop_above``."""
    return ScanError(
        f"no voxel is above {threshold:g}, and the bundle looks only at those that are "
        "(preprocessing.crop_above); is the scan empty, or in another unit?",
        source=volume.source or "scan",
    )


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


def _make_meta_tensor(array: Array, volume: Volume) -> MetaTensor:
    from monai.data import MetaTensor

    # A copy, because some of MONAI's transforms change their input in place.
    tensor = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    affine = torch.as_tensor(np.array(volume.affine))
    return MetaTensor(tensor, affine=affine)
