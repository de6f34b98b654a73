"""Whether a GPU's coarse arithmetic computes what it should."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from medseg.bundle.spec import BundleSpec

if TYPE_CHECKING:
    from medseg.inference.segmenter import Ensemble

_MOST_ROUNDING = 0.2
"""Largest relative error of scores that coarse arithmetic causes by itself."""

_log = logging.getLogger(__name__)


def refuse_wrong_arithmetic(
    ensemble: Ensemble, spec: BundleSpec, device: torch.device
) -> None:
    """Fall back to float32 where the GPU's coarse arithmetic returns something else altogether."""
    if ensemble.precision == torch.float32:
        return
    generator = torch.Generator().manual_seed(0)
    size = (*spec.training.patch, 1)[:3]
    windows = torch.randn(1, len(spec.channels), *size, generator=generator)
    error = ensemble.measure_rounding_error(windows.to(device))
    # Not `error > …`, which would be false for NaN.
    if not error <= _MOST_ROUNDING:
        _log.warning(
            "scores in %s are %.0f %% off those in float32 on %s; computing in float32",
            ensemble.precision,
            100 * error,
            device,
        )
        ensemble.use_float32()
