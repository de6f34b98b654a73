"""What held-out results decide about a bundle: at the end of a training, and in a calibration."""

from __future__ import annotations

from dataclasses import dataclass

from medseg.bundle.spec import BundleSpec, KeepLargestFinding, QualityFinding
from medseg.quality.calibration import calibrate
from medseg.training.keep_largest import CaseResults, HeldOutResults


@dataclass(frozen=True, slots=True)
class HeldOutDecisions:
    """What held-out results decide.

    Attributes:
        results: With the postprocessing as decided.
        keep_largest: Of which labels results keep only the largest connected component, where it
            was to be decided.
        quality: What raw scores mean; ``None`` of too few cases.
    """

    results: CaseResults
    keep_largest: KeepLargestFinding | None
    quality: QualityFinding | None


def decide(held_out: HeldOutResults, spec: BundleSpec) -> HeldOutDecisions:
    """Decide the postprocessing first, and calibrate the results that it gives.

    Args:
        held_out: The results.
        spec: The bundle; its ``quality`` says how a bound is meant.
    """
    keep_largest = held_out.decide()
    results = held_out.postprocessed(keep_largest)
    quality = calibrate(
        results.samples,
        [region.name for region in spec.label_set.regions],
        coverage=spec.quality.coverage,
        review_share=spec.quality.review_share,
    )
    return HeldOutDecisions(results, keep_largest, quality)
