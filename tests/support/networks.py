"""Bundles of other networks than the U-Net, for tests."""

from __future__ import annotations

from typing import Any

from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec import BundleSpec
from support.bundles import content


def foreign(
    kind: str, dims: int = 3, patch: int = 32, **args: Any
) -> BundleSpec:
    """Return a bundle with one of MONAI's own networks."""
    made = content(training={"patch": [patch] * dims})
    made["network"] = {"kind": kind, "dims": dims, "args": args}
    return parse_spec(made)
