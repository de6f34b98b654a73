"""Sliding windows that a MONAI config asks for, as a bundle states them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medseg.interop.monai_config.config import Component

Fields = dict[str, Any]

MODULE = "monai.inferers"

_WINDOWS = ("SlidingWindowInferer", "SlidingWindowInfererAdapt")
_SLICES = "SliceInferer"
_WHOLE = "SimpleInferer"
_OVERLAP, _SIGMA_SCALE = 0.25, 0.125
"""MONAI's defaults."""
_HARMLESS = (
    *("sw_device", "device", "progress", "cache_roi_weight_map"),
    *("cpu_thresh", "buffer_steps", "buffer_dim"),
)
"""Arguments that say where and how fast it is computed."""


@dataclass(frozen=True, slots=True)
class DescribedWindows:
    """A sliding window of MONAI's.

    Attributes:
        patch: Its size.
        inference: As ``inference`` of a bundle.
        padding: What lies around a scan smaller than it, as in ``preprocessing``.
        slice_axis: The axis across which a 2D network sees slices; ``None`` for volumes.
    """

    patch: tuple[int, ...]
    inference: Fields
    padding: str
    slice_axis: int | None = None


def describe_windows(component: Component, dims: int) -> DescribedWindows:
    """Return a sliding window as a bundle states it.

    Args:
        component: The inferer.
        dims: Of the network.

    Raises:
        MedsegError: If it is another inferer, or medseg has no such window.
    """
    slice_axis = None
    if component.name == _SLICES:
        slice_axis = component.take("spatial_dim", 0)
        if slice_axis not in (0, 1, 2):
            raise component.refuse("an axis is 0, 1 or 2", "spatial_dim")
    elif component.name == _WHOLE:
        raise component.refuse(
            "sees a whole scan at once, of whatever size; medseg's networks see windows of one "
            f"size, as {_WINDOWS[0]} states them"
        )
    elif component.name not in _WINDOWS:
        raise component.refuse(f"known: {', '.join((*_WINDOWS, _SLICES))}")
    if (dims == 2) != (slice_axis is not None):
        raise component.refuse(
            f"with a network of {dims} dimensions; 2D networks are known with {_SLICES}, which "
            "passes over the slices of a volume"
        )
    inference = {
        "overlap": _take_overlap(component),
        "window_weights": _take_mode(component),
        "batch_size": _take_positive(component, "sw_batch_size", 1),
    }
    padding = _take_padding(component)
    patch = _take_size(component, dims)
    component.require(with_coord=False)
    if component.take("mode") == "gaussian":
        component.require(sigma_scale=_SIGMA_SCALE)
    component.finish((*_HARMLESS, "sigma_scale"))
    return DescribedWindows(patch, inference, padding, slice_axis)


def _take_overlap(component: Component) -> float:
    overlap = component.take("overlap", _OVERLAP)
    if isinstance(overlap, list) and overlap:
        first, *others = overlap
        overlap = first if all(other == first for other in others) else None
    is_number = isinstance(overlap, int | float)
    if not is_number or not 0 <= overlap < 1:
        raise component.refuse(f"{str(overlap)[:60]}", "overlap")
    return float(overlap)


def _take_mode(component: Component) -> str:
    mode = component.take("mode", "constant")
    if mode not in ("constant", "gaussian"):
        raise component.refuse(f"{str(mode)[:60]}", "mode")
    return str(mode)


def _take_padding(component: Component) -> str:
    mode = component.take("padding_mode", "constant")
    if mode == "replicate":
        component.take("cval")
        return "replicate"
    component.require(padding_mode="constant", cval=0.0)
    return "zero"


def _take_positive(component: Component, name: str, default: int) -> int:
    value = component.take(name, default)
    is_count = isinstance(value, int) and not isinstance(value, bool)
    if not is_count or not 1 <= value <= 4096:
        raise component.refuse(f"{str(value)[:60]}", name)
    return int(value)


def _take_size(component: Component, dims: int) -> tuple[int, ...]:
    size = component.take("roi_size")
    if isinstance(size, int):
        size = [size] * dims
    is_size = isinstance(size, list) and len(size) == dims
    if not is_size or not all(_is_length(length) for length in size):
        raise component.refuse(
            f"{str(size)[:60]}; {dims} positive sizes are needed", "roi_size"
        )
    return tuple(size)


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
