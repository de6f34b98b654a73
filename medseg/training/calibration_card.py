"""What a model card says of a calibration, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from medseg.bundle.spec import (
    CalibratedSpec,
    KeepLargestFinding,
    QualityFinding,
)
from medseg.names import abbreviate
from medseg.training.keep_largest import explain
from medseg.training.markdown import bullets, escape
from medseg.training.model_card import describe_quality, results_table
from medseg.training.report import Statistics

QUALITY = "Quality estimates"
CALIBRATION = "Calibration"


def describe_calibration(
    quality: QualityFinding,
    calibrated: CalibratedSpec,
    statistics: Statistics,
    unknown: Sequence[str],
) -> dict[str, str]:
    """Return heading → text of the sections on quality and on the cases it was learned from.

    Args:
        quality: What was learned.
        calibrated: On what.
        statistics: Of the scores of the cases.
        unknown: Structures that no case holds.
    """
    count = calibrated.cases
    parts = [
        f"The quality of results was calibrated on {count} cases (fingerprint "
        f"`{calibrated.data_fingerprint}`) with {escape(calibrated.calibrated_with)}, apart from "
        "the training. On them results score:",
        results_table(statistics),
        f"Mean ± standard deviation over the {count} cases.",
        "What is said of a result holds for scans like these: of other scanners, protocols and "
        "patients it can be too good. It holds only if the network has learned from none of them.",
    ]
    if unknown:
        names = escape(abbreviate(unknown))
        parts.append(
            f"No case holds {names}, so nothing was learned about it: an estimate for it is that "
            "for the other labels."
        )
    return {
        QUALITY: describe_quality(quality, count),
        CALIBRATION: "\n\n".join(parts),
    }


def describe_postprocessing(finding: KeepLargestFinding) -> str:
    """Return the text of the section on the largest components."""
    decisions = [escape(sentence) for sentence in explain(finding)]
    reason = (
        "Results keep only the largest connected component of a label where that gave the cases "
        "of the calibration the better mean Dice. Since the same cases decided, a gain is slightly "
        "too good."
    )
    return f"{reason}\n\n{bullets(decisions)}"
