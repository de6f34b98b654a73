"""What stock MONAI does otherwise than medseg when it runs a bundle's export."""

from __future__ import annotations

from medseg.bundle.spec import BundleSpec
from medseg.preprocessing import departures


def list_departures(spec: BundleSpec) -> list[str]:
    """Say what of a bundle stock MONAI cannot do, and what it does instead.

    Returns:
        Sentences for people; empty where label maps are the same.
    """
    found = departures.find_departures(spec)
    if spec.inference.window_steps == "even":
        found.append(
            "windows: they lie at equal distances; MONAI moves the last one to fit"
        )
    if spec.inference.window_weights == "nnunet":
        found.append(
            "scores: windows are added up in half precision; MONAI does in single precision"
        )
    return found
