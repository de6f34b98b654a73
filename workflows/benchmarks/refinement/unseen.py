"""Corruptions that calibration and augmentation do not know, for testing alone.

They are the kinds that benchmarks of robustness in MR use besides medseg's own: movement in the
scanner, spikes in k-space, defocus, another contrast, and lost signal. Severity 0 changes nothing
and 1 is about where segmentation breaks down.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform, gaussian_filter

from medseg.quality.corruptions import Corruption, Image

Matrix = npt.NDArray[np.float64]


def _motion(image: Image, severity: float, rng: np.random.Generator) -> Image:
    """Fill parts of k-space from a head that has moved (Shaw et al., MIDL 2019)."""
    axis = int(rng.integers(3))
    lines = image.shape[axis]
    spectrum = np.fft.fft(image, axis=axis)
    for _ in range(3):
        moved = _moved(image, severity, rng)
        start = int(rng.integers(lines))
        taken = (start + np.arange(max(1, lines // 5))) % lines
        taken = taken[taken != 0]  # the mean stays
        where = tuple(taken if n == axis else slice(None) for n in range(3))
        spectrum[where] = np.fft.fft(moved, axis=axis)[where]
    return np.abs(np.fft.ifft(spectrum, axis=axis)).astype(np.float32)


def _moved(image: Image, severity: float, rng: np.random.Generator) -> Image:
    """Turn and shift an image as a rigid body, by up to 25° and a quarter of its size."""
    turn = _rotation(np.radians(rng.uniform(-25, 25, 3) * severity))
    centre = (np.array(image.shape) - 1) / 2
    shift = rng.uniform(-0.25, 0.25, 3) * severity * np.array(image.shape)
    made: Image = affine_transform(
        image, turn, centre - turn @ (centre + shift), order=1, mode="nearest"
    )
    return made


def _rotation(angles: Matrix) -> Matrix:
    turn: Matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        one, other = [n for n in range(3) if n != axis]
        about = np.eye(3)
        about[[one, other], [one, other]] = np.cos(angle)
        about[one, other], about[other, one] = -np.sin(angle), np.sin(angle)
        turn = turn @ about
    return turn


def _spikes(image: Image, severity: float, rng: np.random.Generator) -> Image:
    """Lay stripes over an image: single points of its k-space that are far too large."""
    spectrum = np.fft.fftn(image)
    largest = np.abs(spectrum).max()
    for _ in range(int(rng.integers(1, 4))):
        place = tuple(
            int(rng.integers(1, n // 2)) if n > 3 else 0 for n in image.shape
        )
        spectrum[place] += (
            0.7 * severity * largest * np.exp(2j * np.pi * rng.random())
        )
    return np.fft.ifftn(spectrum).real.astype(np.float32)


def _blur(image: Image, severity: float, rng: np.random.Generator) -> Image:
    made: Image = gaussian_filter(image, 3 * severity * rng.uniform(0.7, 1.0))
    return made


def _contrast(image: Image, severity: float, rng: np.random.Generator) -> Image:
    """Replace intensities by a random curve that need not rise, as another sequence does."""
    knots = np.linspace(0, 1, 5)
    curve = np.interp(np.clip(image, 0, 1), knots, rng.random(5))
    return ((1 - severity) * image + severity * curve).astype(np.float32)


def _lost_signal(
    image: Image, severity: float, rng: np.random.Generator
) -> Image:
    """Darken a ball somewhere, as metal and air do."""
    axes = np.meshgrid(
        *[np.linspace(-1, 1, n) for n in image.shape],
        indexing="ij",
        sparse=True,
    )
    apart = sum((axis - rng.uniform(-0.6, 0.6)) ** 2 for axis in axes)
    hole = np.exp(-((apart / (0.3 + 0.7 * severity) ** 2) ** 2))
    return (image * (1 - severity * hole)).astype(np.float32)


UNSEEN: Mapping[str, Corruption] = {
    "motion": _motion,
    "spikes": _spikes,
    "blur": _blur,
    "contrast": _contrast,
    "lost_signal": _lost_signal,
}
"""Kinds of corruption, by name."""
