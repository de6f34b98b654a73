"""Scans made worse on purpose, to learn what raw confidence means where scans are bad.

The kinds are those that scanners and coils make (noise, contrast, coil shading, thick slices,
moving patients); severity 0 changes nothing and 1 is about where segmentation breaks down. What
each computes is in ``medseg.quality.intensity_transforms``; here its parameters are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from medseg.quality import intensity_transforms as intensity
from medseg.volume import Array, Volume

Image = npt.NDArray[np.float32]
Corruption = Callable[[Image, float, np.random.Generator], Image]
"""Corrupts one channel ``(i, j, k)`` whose bulk of intensities is from 0 to 1.

It gets the channel, a severity from 0 to 1 and a source of chance, and returns the channel
corrupted.
"""

_BULK = (1.0, 99.0)
"""Percentiles of an image that its intensity range is taken from: scales of MR are arbitrary."""

_BIAS_LIMIT = 3.0
"""Largest logarithm of a bias field's factor, which is then 20."""


def corrupt_volume(
    volume: Volume, kind: str | Corruption, severity: float, seed: int
) -> Volume:
    """Return a worse copy of a scan, on the same grid.

    Args:
        volume: The scan.
        kind: One of ``CORRUPTIONS``, or a corruption of your own.
        severity: 0 to 1.
        seed: Of all chance; every channel is corrupted alike.

    Examples:
        >>> from medseg.testing import make_phantom
        >>> volume, _ = make_phantom(seed=0, shape=(16, 16, 12))
        >>> corrupt_volume(volume, "ghosting", severity=0.5, seed=1).shape
        (16, 16, 12)
    """
    corruption = CORRUPTIONS[kind] if isinstance(kind, str) else kind
    channels = []
    for number, channel in enumerate(volume.array):
        rng = np.random.default_rng(seed)
        bulk = _measure_bulk(volume.get_shown(number))
        corrupted = _corrupt_channel(channel, bulk, corruption, severity, rng)
        channels.append(corrupted)
    return volume.with_array(np.stack(channels))


def _corrupt_channel(
    channel: Array,
    bulk: tuple[np.float32, np.float32],
    corruption: Corruption,
    severity: float,
    rng: np.random.Generator,
) -> Image:
    """Bring the bulk of a channel to 0…1, corrupt it, and bring it back."""
    offset, width = bulk
    image = (channel.astype(np.float32) - offset) / width
    corrupted = corruption(image.astype(np.float32), severity, rng)
    restored = corrupted * width + offset
    return restored.astype(np.float32)


def _measure_bulk(channel: Array) -> tuple[np.float32, np.float32]:
    """Return where the bulk of a channel's intensities begins, and how wide it is."""
    low, high = np.percentile(channel, _BULK)
    # A constant image has no width; what is added to it must be small beside its value.
    smallest_width = 1e-6 * max(abs(float(high)), 1.0)
    width = max(float(high - low), smallest_width)
    return np.float32(low), np.float32(width)


def _noise(image: Image, severity: float, rng: np.random.Generator) -> Image:
    field = rng.normal(0, 0.5 * severity, image.shape).astype(np.float32)
    noisy = intensity.noise(_to_tensor(image), _to_tensor(field), sd=1.0)
    return _to_array(noisy)


def _gamma(image: Image, severity: float, rng: np.random.Generator) -> Image:
    """Make the image darker or brighter, each half of the time."""
    exponent = float(np.exp(rng.choice((-1.2, 1.2)) * severity))
    return _to_array(intensity.gamma(_to_tensor(image), exponent))


def _bias_field(
    image: Image, severity: float, rng: np.random.Generator
) -> Image:
    coefficients = []
    for length in image.shape:
        linear, quadratic = 0.0, 0.0
        if length > 1:
            linear = severity * float(rng.normal(0, 1.2))
            quadratic = severity * float(rng.normal(0, 0.8))
        coefficients.append((linear, quadratic))
    shaded = intensity.bias_field(
        _to_tensor(image), coefficients, limit=_BIAS_LIMIT
    )
    return _to_array(shaded)


def _low_resolution(
    image: Image, severity: float, rng: np.random.Generator
) -> Image:
    share = 1 / (1 + 4 * severity)
    size = [_coarse_length(length, share) for length in image.shape]
    coarse = intensity.low_resolution(
        _to_tensor(image), size, align_corners=True
    )
    return _to_array(coarse)


def _coarse_length(length: int, share: float) -> int:
    """Return a share of an axis' voxels; two at least, so that there is a line between them."""
    if length == 1:
        return 1
    return round(length * max(share, 1.5 / length))


def _ghosting(image: Image, severity: float, rng: np.random.Generator) -> Image:
    long_axes = [axis for axis, length in enumerate(image.shape) if length > 1]
    axis = int(rng.choice(long_axes or [0]))
    ghosted = intensity.ghosting(
        _to_tensor(image),
        axis=axis + 1,  # behind that of the channels
        every=int(rng.integers(2, 5)),
        strength=0.9 * severity,
    )
    return _to_array(ghosted)


def _to_tensor(image: Image) -> torch.Tensor:
    """Return a channel ``(i, j, k)`` as a tensor ``(1, i, j, k)``."""
    return torch.from_numpy(image)[None]


def _to_array(image: torch.Tensor) -> Image:
    array: Image = image[0].numpy()
    return array


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": _noise,
    "gamma": _gamma,
    "bias_field": _bias_field,
    "low_resolution": _low_resolution,
    "ghosting": _ghosting,
}
"""Kinds of corruption, by name."""
