"""Whether a GPU's coarse arithmetic computes what it should."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from medseg._support.memory import is_out_of_memory
from medseg.bundle.spec import BundleSpec
from medseg.inference.bundle_predictor import Ensemble
from medseg.networks.devices import release_memory

_MOST_ROUNDING = 0.2
"""Largest relative error of scores that coarse arithmetic causes by itself."""

_log = logging.getLogger(__name__)


def refuse_wrong_arithmetic(
    ensemble: Ensemble, spec: BundleSpec, device: torch.device
) -> None:
    """Fall back to float32 where the GPU's coarse arithmetic returns something else altogether."""
    if ensemble.precision == torch.float32:
        return
    error = _measure_error(ensemble, spec, device)
    # Not `error > …`, which would be false for NaN.
    if not error <= _MOST_ROUNDING:
        _log.warning(
            "scores in %s are %.0f %% off those in float32 on %s; computing in float32",
            ensemble.precision,
            100 * error,
            device,
        )
        ensemble.use_float32()


def _measure_error(
    ensemble: Ensemble, spec: BundleSpec, device: torch.device
) -> float:
    """Return how far scores of one window are off; of a part of one where memory is short."""
    size = spec.training.patch
    try:
        return _measure_at(size, ensemble, spec, device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # float32 takes twice the memory of what will be computed later.
    release_memory(device)
    steps = zip(size, spec.network.divisor, strict=True)
    halves = [by * max(2, length // by // 2) for length, by in steps]
    return _measure_at(halves, ensemble, spec, device)


def _measure_at(
    size: Sequence[int],
    ensemble: Ensemble,
    spec: BundleSpec,
    device: torch.device,
) -> float:
    shape = (*size, 1)[:3]
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(1, len(spec.channels), *shape, generator=generator)
    return ensemble.measure_rounding_error(windows.to(device))
