"""What stock MONAI does otherwise than a bundle says: its transforms have nothing nearer."""

from __future__ import annotations

from collections.abc import Iterator

from medseg.bundle.spec import BundleSpec, ZScore
from medseg.preprocessing.normalisation import list_steps


def find_departures(spec: BundleSpec) -> list[str]:
    """Say where the bundle's MONAI chain is not exactly its preprocessing.

    Returns:
        Sentences for people; empty where the chain is exact.
    """
    return [*_compare_grids(spec), *_compare_masks(spec)]


def _compare_grids(spec: BundleSpec) -> Iterator[str]:
    prep = spec.preprocessing
    if prep.spacing_mm is None or prep.resampling.grid == "spacing":
        return
    yield (
        "grid: the network sees the extent of a scan cut into equal voxels; MONAI's voxels have "
        "exactly the wanted size and lie up to half a voxel beside them"
    )
    if prep.resampling.interpolation == "cubic":
        yield "interpolation: images are resampled by cubic splines; here linearly"
    ratio = prep.resampling.coarse_axis_ratio
    if ratio is not None:
        yield (
            f"coarse axis: one more than {ratio:g} times as coarse as the finest is resampled by "
            "the nearest voxel; here like the others"
        )


def _compare_masks(spec: BundleSpec) -> Iterator[str]:
    for intensity in spec.intensities:
        for step in list_steps(intensity):
            if isinstance(step, ZScore) and step.nonzero == "filled":
                yield (
                    "normalisation: mean and deviation are those of all that is not 0 in any "
                    "channel, holes included; here those of each channel's voxels that are not 0"
                )
                return
