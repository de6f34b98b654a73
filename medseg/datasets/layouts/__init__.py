"""How data sets list their cases; each layout's list becomes the same listed cases."""

from __future__ import annotations

from medseg.datasets.layouts.contract import (
    CaseListing,
    LabelSource,
    Layout,
    ListedCase,
    Selection,
)
from medseg.datasets.layouts.dataset_json import LISTING
from medseg.datasets.layouts.registry import LAYOUTS, list_cases

__all__ = [
    "LAYOUTS",
    "LISTING",
    "CaseListing",
    "LabelSource",
    "Layout",
    "ListedCase",
    "Selection",
    "list_cases",
]
