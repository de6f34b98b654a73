"""How data sets list their cases; each layout's list becomes the same listed cases."""

from __future__ import annotations

from medseg.layouts.contract import (
    CaseListing,
    LabelSource,
    Layout,
    ListedCase,
    Selection,
)
from medseg.layouts.dataset_json import LISTING
from medseg.layouts.registry import LAYOUTS, list_cases

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
