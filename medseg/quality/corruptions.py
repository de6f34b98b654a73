"""Scans made worse on purpose, to learn what scores of confidence mean where scans are bad.

The kinds are those that scanners and coils make (noise, contrast, coil shading, thick slices,
moving patients); severity 0 changes nothing and 1 is about where segmentation breaks down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy.ndimage import zoom

from medseg.volume import Array, Volume

Image = npt.NDArray[np.float32]
Corruption = Callable[[Image, float, np.random.Generator], Image]
"""One channel ``(i, j, k)`` with intensities 0 to 1 in its bulk, severity → the channel changed."""

_BULK = (1.0, 99.0)
"""Percentiles of an image that its intensity range is taken from: scales of MR are arbitrary."""


def corrupt_volume(volume: Volume, kind: str | Corruption, severity: float, seed: int) -> Volume:
    """Return a worse copy of a scan, on the same grid.

    Args:
        volume: The scan.
        kind: One of ``CORRUPTIONS``, or a change of your own.
        severity: 0 to 1.
        seed: Of what is random; the same for all channels.
    """
    change = CORRUPTIONS[kind] if isinstance(kind, str) else kind
    channels = [_changed(channel, change, severity, seed) for channel in volume.array]
    return volume.with_array(np.stack(channels))


def _changed(channel: Array, change: Corruption, how: float, seed: int) -> Image:
    low, high = np.percentile(channel, _BULK)
    width = max(float(high - low), 1e-6 * max(abs(float(high)), 1.0))
    image = ((channel.astype(np.float32) - np.float32(low)) / np.float32(width)).astype(np.float32)
    made = change(image, how, np.random.default_rng(seed))
    return (made * np.float32(width) + np.float32(low)).astype(np.float32)


def _noise(image: Image, severity: float, rng: np.random.Generator) -> Image:
    return image + rng.normal(0, 0.5 * severity, image.shape).astype(np.float32)


def _gamma(image: Image, severity: float, rng: np.random.Generator) -> Image:
    power = np.exp(rng.choice((-1.2, 1.2)) * severity)
    return np.sign(image) * np.abs(image) ** np.float32(power)


def _bias_field(image: Image, severity: float, rng: np.random.Generator) -> Image:
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in image.shape], indexing="ij", sparse=True)
    field = np.zeros(image.shape)
    for axis, length in zip(axes, image.shape, strict=True):
        if length > 1:
            field = field + rng.normal(0, 1.2) * axis + rng.normal(0, 0.8) * axis**2
    return image * np.exp(np.clip(severity * field, -3, 3)).astype(np.float32)


def _low_resolution(image: Image, severity: float, rng: np.random.Generator) -> Image:
    factor = 1 / (1 + 4 * severity)
    small = zoom(image, [max(factor, 1.5 / n) if n > 1 else 1 for n in image.shape], order=1)
    back = [n / m for n, m in zip(image.shape, small.shape, strict=True)]
    made: Image = zoom(small, back, order=1)
    return made


def _ghosting(image: Image, severity: float, rng: np.random.Generator) -> Image:
    axis = int(rng.choice([axis for axis, n in enumerate(image.shape) if n > 1] or [0]))
    lines = np.fft.fft(image, axis=axis)
    dimmed = np.ones(image.shape[axis])
    dimmed[:: int(rng.integers(2, 5))] = 1 - 0.9 * severity
    dimmed[0] = 1  # the mean stays
    shape = [-1 if n == axis else 1 for n in range(3)]
    return np.fft.ifft(lines * dimmed.reshape(shape), axis=axis).real.astype(np.float32)


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": _noise,
    "gamma": _gamma,
    "bias_field": _bias_field,
    "low_resolution": _low_resolution,
    "ghosting": _ghosting,
}
"""Kinds of corruption, by name."""
