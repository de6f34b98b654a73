"""What the finished runs of a cross-validation's folds left: scores of every held-back case."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medseg.errors import CheckpointError
from medseg.metrics.metrics import CaseScores, LabelScores
from medseg.quality.calibration import CalibrationSample
from medseg.training.keep_largest import CaseResults, HeldOutResults
from medseg.training.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class FoldResult:
    """What one fold's run came to.

    Attributes:
        best_step: The step whose weights were kept.
        held_back: Its held-back cases, on the scans' own grids.
        fingerprint: Hash of the data.
    """

    best_step: int
    held_back: HeldOutResults
    fingerprint: str


def read_fold(folder: RunFolder) -> FoldResult:
    """Read what the finished run of a fold found.

    Raises:
        CheckpointError: If its ``metrics.json`` is damaged.
    """
    try:
        found = json.loads(folder.metrics.read_text(encoding="utf-8"))
        return FoldResult(int(found["best_step"]), _held_back(found), found["data_fingerprint"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{folder.metrics} is damaged ({error}); remove the folder {folder.path} and resume, "
            "which trains this fold again"
        ) from error


def _held_back(found: Mapping[str, Any]) -> HeldOutResults:
    """Read both ways of finishing where a fold has them: all folds together decide anew."""
    ways = found.get("undecided")
    if ways is None:
        return HeldOutResults(_outcome(found))
    return HeldOutResults(_outcome(ways["every_piece"]), _outcome(ways["largest_piece"]))


def _outcome(found: Mapping[str, Any]) -> CaseResults:
    return CaseResults(
        [_case(one) for one in found["cases"]], [_sample(one) for one in found["confidence"]]
    )


def _case(content: Mapping[str, Any]) -> CaseScores:
    labels = {}
    for name, fields in content["labels"].items():
        numbers: dict[str, Any] = {key: math.nan if v is None else v for key, v in fields.items()}
        labels[name] = LabelScores(**numbers)
    return CaseScores(labels, str(content["case"]))


def _sample(content: Mapping[str, Any]) -> CalibrationSample:
    dice = {name: math.nan if v is None else float(v) for name, v in content["dice"].items()}
    # Absent in results of earlier versions: those know no other temperature.
    scores_at = {float(at): _numbers(scores) for at, scores in content.get("scores_at", {}).items()}
    scores = _numbers(content["scores"])
    return CalibrationSample(
        str(content["case"]), scores, dice, bool(content["is_clean"]), scores_at
    )


def _numbers(content: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in content.items()}
