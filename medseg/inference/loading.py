"""The networks of a bundle, loaded to compute as somebody asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from medseg._support.optional_packages import import_monai
from medseg.bundle.bundle import Assembly, Bundle
from medseg.bundle.spec import BundleSpec, SpeedSetting
from medseg.inference.arithmetic_check import refuse_wrong_arithmetic
from medseg.inference.assembly_predictor import AssemblyPredictor
from medseg.inference.backends.at_speed import (
    EXACT,
    check_speed,
    find_decided_setting,
    set_overlap,
)
from medseg.inference.backends.loading import AUTO, load_members
from medseg.inference.bundle_predictor import BundlePredictor, Ensemble
from medseg.inference.device_errors import explain_start_errors
from medseg.inference.sliding_window import SlidingWindow
from medseg.networks.devices import choose_precision
from medseg.networks.loading import get_output_layout

Predictor = BundlePredictor | AssemblyPredictor
"""What passes a scan through the networks of a bundle, or of all bundles of an assembly."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How networks are to be computed: what ``Segmenter`` takes.

    Attributes:
        device: Where.
        backend: ``auto`` or a backend.
        precision: ``auto`` or a precision.
        mirror: Whether to average over flips; as the bundle says if ``None``.
        fold_ensemble: Whether to average over all networks of a bundle.
        gpu_memory: Most bytes of GPU memory for image and scores.
        speed: A speed; the bundle's if ``None``.
    """

    device: torch.device
    backend: str = AUTO
    precision: str = AUTO
    mirror: bool | None = None
    fold_ensemble: bool = True
    gpu_memory: int | None = None
    speed: str | None = None

    @property
    def is_free(self) -> bool:
        """Whether a CPU may compute as fast as held-out cases allow."""
        is_left_open = self.backend == self.precision == AUTO
        return (
            is_left_open and self.device.type == "cpu" and self.speed != EXACT
        )

    def complete(self, spec: BundleSpec) -> LoadOptions:
        """Return the options with what a bundle says of those that were not given.

        Raises:
            MedsegError: If there is no such speed.
        """
        mirror = self.mirror
        if mirror is None:
            mirror = spec.inference.mirror
        speed = check_speed(self.speed, spec)
        return replace(self, mirror=mirror, speed=speed)

    def describe(self) -> dict[str, str]:
        """Return those that can change a label map, ``auto`` left as it is."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "mirror": str(self.mirror),
        }


def load_predictor(
    bundle: Bundle, chosen: Collection[str], options: LoadOptions
) -> Predictor:
    """Load the networks of a bundle, or those of an assembly that the labels need.

    Args:
        bundle: A trained bundle or an assembly of some.
        chosen: Names of the labels that results have.
        options: How to compute.

    Raises:
        CheckpointError: If there are no weights, or weights of another network.
        MissingExtraError: If the backend is not installed.
        MedsegError: If there is no such backend, or it cannot compute in this precision.
    """
    if not isinstance(bundle, Assembly):
        return _load_bundle(bundle, chosen, options)
    parts = {}
    for step in bundle.select(chosen):
        names = step.bundle.spec.label_set.names
        part = _load_bundle(step.bundle, names, options)
        parts[step.spec.name] = part
    return AssemblyPredictor(
        bundle,
        parts,
        options.device,
        chosen=chosen,
        choices=options.describe(),
    )


def _load_bundle(
    bundle: Bundle, chosen: Collection[str], options: LoadOptions
) -> BundlePredictor:
    """Load a bundle's networks, and what is known of them."""
    # Before anything else does, which would import MLflow and pandas with it.
    import_monai()
    options = options.complete(bundle.spec)
    device, members = options.device, bundle.members
    files = members if options.fold_ensemble else members[:1]
    setting = None
    if options.is_free:
        setting = find_decided_setting(bundle, str(options.speed), device)
    backend, ensemble = _load_ensemble(bundle, files, setting, options)
    arithmetic = None
    if setting is not None and backend != "torch":
        arithmetic = setting.name
    choices = options.describe() | {"members": str(len(files))}
    if options.speed == EXACT or bundle.trained.speed is not None:
        choices["speed"] = str(options.speed)
    return BundlePredictor(
        bundle,
        ensemble,
        _make_sliding_window(bundle, setting, options),
        chosen=chosen,
        backend=backend,
        arithmetic=arithmetic,
        choices=choices,
        quick_clicks=options.is_free and backend == "torch",
    )


def _load_ensemble(
    bundle: Bundle,
    files: Sequence[Path],
    setting: SpeedSetting | None,
    options: LoadOptions,
) -> tuple[str, Ensemble]:
    """Return what computes, and the networks as it computes them."""
    spec, device = bundle.spec, options.device
    precision = _choose_inference_precision(options.precision, device)
    backend = options.backend
    if options.speed == EXACT and backend == AUTO:
        backend = "torch"
    with explain_start_errors(device):
        backend, loaded = load_members(
            bundle, files, backend, device, precision, setting
        )
    axes = spec.mirror_axes if options.mirror else ()
    ensemble = Ensemble(loaded, spec.network.dims, axes, spec.input_channels)
    if device.type == "cuda":
        with explain_start_errors(device):
            refuse_wrong_arithmetic(ensemble, spec, device)
    return backend, ensemble


def _make_sliding_window(
    bundle: Bundle, setting: SpeedSetting | None, options: LoadOptions
) -> SlidingWindow:
    """Return how windows lie: as the bundle says, or as a speed setting does."""
    spec = bundle.spec
    if setting is not None:
        spec = set_overlap(spec, setting.overlap)
    calibration = bundle.trained.quality
    temperature = calibration.temperature if calibration else 1.0
    return SlidingWindow(
        spec,
        options.device,
        options.gpu_memory,
        get_output_layout(bundle),
        temperature,
    )


def _choose_inference_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic for a precision's name; ``auto`` on a CPU gives MONAI's label maps."""
    if name == "auto" and device.type == "cpu":
        name = "fp32"
    return choose_precision(name, device)
