"""How the evaluation page writes numbers and names."""

from __future__ import annotations

import math

from medseg.metrics.metrics import MEAN

UNKNOWN = "–"
_DIGITS = 3


def name_metric(metric: str, tolerance_mm: float) -> str:
    """Return what people call a metric, with its unit.

    Examples:
        >>> name_metric("hd95", 1.0), name_metric("nsd", 2.5)
        ('HD95, mm', 'NSD at 2.5 mm')
    """
    names = {
        "dice": "Dice",
        "iou": "IoU",
        "hd95": "HD95, mm",
        "nsd": f"NSD at {tolerance_mm:g} mm",
        "volume_error_ml": "Volume error, ml",
        "volume_error_percent": "Volume error, %",
    }
    return names.get(metric, metric)


def name_label(label: str) -> str:
    """Return what people call a label; the mean over labels is none of them."""
    return "mean over labels" if label == MEAN else label


def format_number(value: float) -> str:
    """Return a number with three significant digits, and a dash for none.

    Examples:
        >>> format_number(0.98765), format_number(12.3456), format_number(15234.0)
        ('0.988', '12.3', '15200')
        >>> format_number(1.0), format_number(0.0), format_number(float("nan"))
        ('1.00', '0', '–')
    """
    if math.isnan(value):
        return UNKNOWN
    if value == 0:
        return "0"
    return _format_fixed(value, _count_decimals(value))


def format_spread(mean: float, sd: float) -> str:
    """Return a mean ± its standard deviation, both to the same digit.

    Examples:
        >>> format_spread(0.91234, 0.0213), format_spread(0.91234, float("nan"))
        ('0.912 ± 0.021', '0.912')
    """
    if math.isnan(mean) or math.isnan(sd):
        return format_number(mean)
    larger = max(abs(mean), sd)
    if not larger:
        return "0 ± 0"
    decimals = _count_decimals(larger)
    return f"{_format_fixed(mean, decimals)} ± {_format_fixed(sd, decimals)}"


def format_interval(low: float, high: float) -> str:
    """Return an interval, both ends to the same digit."""
    if math.isnan(low) or math.isnan(high):
        return UNKNOWN
    larger = max(abs(low), abs(high))
    if not larger:
        return "0 to 0"
    decimals = _count_decimals(larger)
    return f"{_format_fixed(low, decimals)} to {_format_fixed(high, decimals)}"


def _count_decimals(value: float) -> int:
    """Return how many decimals show three significant digits; below 0 for large numbers."""
    return _DIGITS - 1 - math.floor(math.log10(abs(value)) + 1e-9)


def _format_fixed(value: float, decimals: int) -> str:
    rounded = round(value, decimals)
    text = f"{rounded:.{max(0, decimals)}f}"
    return text.replace("-", "−")
