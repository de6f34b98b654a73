"""Whole scans through a network of fixed patch size: MONAI's sliding window, set by the bundle."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import (
    Inferer,
    SimpleInferer,
    SliceInferer,
    SlidingWindowInferer,
)

from medseg._support.memory import is_out_of_memory
from medseg.bundle.spec import BundleSpec
from medseg.networks.devices import release_memory
from medseg.networks.window_weights import compute_window_weights
from medseg.preprocessing.transforms import get_padding_value

_log = logging.getLogger(__name__)

SLICE_AXIS = 2
"""Axis along which 2D networks take slices: inferior to superior after orientation."""


def build_window_inferer(
    spec: BundleSpec, network_device: torch.device | None = None
) -> SlidingWindowInferer:
    """Return the inferer that covers ``(1, channels, x, y, z)`` by overlapping windows.

    Windows are weighted as the bundle says; a scan smaller than the window is padded with what
    lies outside a scan. 2D networks see each slice by itself. Steps are MONAI's, also where the
    bundle's are even.

    Args:
        spec: The bundle.
        network_device: Where the network is, if image and scores lie in the host's memory instead;
            it then gets one window at a time.
    """
    arguments = get_window_arguments(spec)
    if network_device is not None:
        arguments["sw_batch_size"] = 1
        arguments["sw_device"] = network_device
        arguments["device"] = torch.device("cpu")
    if spec.network.dims == 2:
        inferer = SliceInferer(spatial_dim=SLICE_AXIS, **arguments)
    else:
        inferer = SlidingWindowInferer(**arguments)
    if spec.inference.window_weights == "nnunet":
        weights = compute_window_weights(spec.training.patch, "nnunet")
        if spec.network.dims == 2:
            weights = weights.unsqueeze(SLICE_AXIS)
        inferer.roi_weight_map = weights[None, None]
    return inferer


def get_window_arguments(spec: BundleSpec) -> dict[str, Any]:
    """State the sliding window as data, for ``build_window_inferer`` and for MONAI's configs."""
    weights = spec.inference.window_weights
    repeats_border = spec.preprocessing.padding == "replicate"
    return {
        "roi_size": list(spec.training.patch),
        "sw_batch_size": spec.inference.batch_size,
        "overlap": spec.inference.overlap,
        "mode": "constant" if weights == "constant" else "gaussian",
        "padding_mode": "replicate" if repeats_border else "constant",
        "cval": get_padding_value(spec),
    }


class Autocast(Inferer):  # type: ignore[misc]
    """Run another inferer in mixed precision and return float32.

    MONAI's engines autocast on CUDA alone, whatever the device is.

    Args:
        inner: The inferer that calls the network.
        device: Where the network is.
        dtype: Precision of the arithmetic; float32 switches autocast off.
    """

    def __init__(
        self, inner: Inferer, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self._inner = inner
        self._device = device
        self._dtype = dtype

    def __call__(
        self,
        inputs: torch.Tensor,
        network: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Return what the inner inferer returns."""
        if self._dtype == torch.float32:
            return self._inner(inputs, network, *args, **kwargs)
        with torch.autocast(self._device.type, dtype=self._dtype):
            return self._inner(inputs, network, *args, **kwargs)


class CaseInferer(Inferer):  # type: ignore[misc]
    """Answers for whole cases, in the host's memory once a GPU's ran out.

    Args:
        spec: The bundle.
        device: Where the network is.
        dtype: Precision of the arithmetic.
        answer: Makes the answer of logits ``(1, classes, x, y, z)``, where they lie.
    """

    def __init__(
        self,
        spec: BundleSpec,
        device: torch.device,
        dtype: torch.dtype,
        answer: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        super().__init__()
        self._spec = spec
        self._device = device
        self._dtype = dtype
        self._answer = answer
        self._infer = Autocast(build_window_inferer(spec), device, dtype)
        self._image_device = device

    def __call__(
        self,
        inputs: torch.Tensor,
        network: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Return the answer for a case ``(1, channels, x, y, z)``."""
        try:
            return self._try(inputs, network)
        except RuntimeError as error:
            has_other_memory = self._image_device.type == "cuda"
            if not has_other_memory or not is_out_of_memory(error):
                raise
        # Behind the handler, whose error holds on to what was made of the case.
        release_memory(self._device)
        _log.warning(
            "the memory of %s ran out; cases are validated in the host's, one window at a time",
            self._device,
        )
        self._image_device = torch.device("cpu")
        on_host = build_window_inferer(self._spec, self._device)
        self._infer = Autocast(on_host, self._device, self._dtype)
        return self._try(inputs, network)

    def _try(
        self, inputs: torch.Tensor, network: Callable[..., Any]
    ) -> torch.Tensor:
        image = inputs.to(self._image_device)
        return self._answer(self._infer(image, network))


def build_training_inferer(
    device: torch.device, dtype: torch.dtype
) -> Autocast:
    """Return the inferer of a training step: the whole patch at once, in mixed precision."""
    return Autocast(SimpleInferer(), device, dtype)
