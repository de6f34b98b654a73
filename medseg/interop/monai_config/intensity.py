"""MONAI's transforms of intensities, as a bundle states them."""

from __future__ import annotations

import ast
from typing import Any

from medseg.interop.monai_config.config import Component
from medseg.interop.monai_config.transforms import (
    check_float,
    parse_function,
    take_number,
)

Fields = dict[str, Any]

_SIGMOID = "torch.sigmoid({name})"
_TANH = "{scale} * torch.tanh({name} / {scale})"


def describe_intensity(component: Component, channels: int) -> Fields | None:
    """Return what a transform does to intensities; ``None`` if it is no such transform.

    Args:
        component: The transform.
        channels: Of the image.

    Raises:
        MedsegError: If medseg cannot do it.
    """
    describe = {
        "ScaleIntensityRange": _describe_window,
        "ScaleIntensity": _describe_range,
        "NormalizeIntensity": _describe_zscore,
        "Lambda": _describe_function,
    }.get(component.name)
    if describe is None:
        return None
    fields = describe(component)
    takes_statistics = fields["kind"] in ("minmax", "zscore")
    if takes_statistics and channels > 1:
        component.require(channel_wise=True)
    component.take("channel_wise")
    check_float(component, "dtype")
    component.finish(("keys", "allow_missing_keys", "lazy"))
    return fields


def find_threshold(window: Fields) -> float | None:
    """Return the intensity above which a normalised one is positive; ``None`` if there is none."""
    if window["kind"] != "window":
        return None
    if window["clip"] and window["mean"] < window["low"]:
        return None  # clipped, every one is positive
    return float(window["mean"])


def _describe_window(component: Component) -> Fields:
    low = take_number(component, "a_min")
    high = take_number(component, "a_max")
    clip = component.take("clip", False)
    # MONAI's default: a_min and a_max become 0 and 1, and there is nothing to clip at.
    bounds = [component.take("b_min"), component.take("b_max")]
    lowest, highest = 0.0, 1.0
    if bounds != [None, None]:
        lowest = take_number(component, "b_min")
        highest = take_number(component, "b_max")
    elif clip:
        raise component.refuse("is needed where clip is true", "b_min")
    if low >= high or lowest >= highest:
        raise component.refuse("a_min and b_min must be below a_max and b_max")
    std = (high - low) / (highest - lowest)
    return {
        "kind": "window",
        "low": low,
        "high": high,
        "mean": low - lowest * std,
        "std": std,
        "clip": bool(clip),
    }


def _describe_range(component: Component) -> Fields:
    component.require(factor=None)
    lowest = take_number(component, "minv", 0.0)
    highest = take_number(component, "maxv", 1.0)
    if lowest >= highest:
        raise component.refuse("minv must be below maxv")
    return {"kind": "minmax", "to": (lowest, highest)}


def _describe_zscore(component: Component) -> Fields:
    nonzero = bool(component.take("nonzero", False))
    if component.take("subtrahend") is None:
        component.require(divisor=None)
        return {"kind": "zscore", "nonzero": nonzero}
    component.require(nonzero=False)
    mean = take_number(component, "subtrahend")
    std = take_number(component, "divisor")
    if std <= 0:
        raise component.refuse("must be above 0", "divisor")
    bounds = {"low": mean, "high": mean + std}
    return {"kind": "window", **bounds, "mean": mean, "std": std, "clip": False}


def _describe_function(component: Component) -> Fields:
    """Recognise the two curves by their exact form."""
    expression = component.take_expression("func")
    parsed = parse_function(expression)
    if parsed is not None:
        name, body = parsed
        text = ast.unparse(body)
        if text == _SIGMOID.format(name=name):
            return {"kind": "squash", "curve": "sigmoid"}
        match body:
            case ast.BinOp(left=ast.Constant(value=int() | float() as scale)):
                if text == _TANH.format(name=name, scale=scale):
                    return {"kind": "squash", "curve": "tanh", "scale": scale}
    raise component.refuse(
        f"the function {expression[:100] or component.take('func')}", "func"
    )
