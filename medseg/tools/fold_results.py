"""What the finished runs of a cross-validation's folds left: scores of every held-back case."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medseg.tools.calibration import Sample
from medseg.tools.checkpoint import RunFolder
from medseg.tools.metrics import CaseScores, LabelScores, summarise
from medseg.tools.model_card import FoldFacts
from medseg.words.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class FoldResult:
    """What one fold's run came to.

    Attributes:
        facts: For the model card.
        cases: Scores of its held-back cases, on the scans' own grids.
        samples: Their raw confidence and true Dice, with those of corrupted copies.
        fingerprint: Hash of the data.
    """

    facts: FoldFacts
    cases: Sequence[CaseScores]
    samples: Sequence[Sample]
    fingerprint: str


def read_fold(folder: RunFolder, fold: int) -> FoldResult:
    """Read what the finished run of a fold found.

    Raises:
        CheckpointError: If its ``metrics.json`` is damaged.
    """
    try:
        found = json.loads(folder.metrics.read_text(encoding="utf-8"))
        cases = [_case(one) for one in found["cases"]]
        samples = [_sample(one) for one in found["confidence"]]
        facts = FoldFacts(fold, len(cases), int(found["best_step"]), _mean_dice(cases))
        return FoldResult(facts, cases, samples, str(found["data_fingerprint"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{folder.metrics} is damaged ({error}); remove the folder {folder.path} and resume, "
            "which trains this fold again"
        ) from error


def _case(content: Mapping[str, Any]) -> CaseScores:
    labels = {}
    for name, fields in content["labels"].items():
        numbers: dict[str, Any] = {key: math.nan if v is None else v for key, v in fields.items()}
        labels[name] = LabelScores(**numbers)
    return CaseScores(labels, str(content["case"]))


def _sample(content: Mapping[str, Any]) -> Sample:
    dice = {name: math.nan if v is None else float(v) for name, v in content["dice"].items()}
    scores = {name: float(value) for name, value in content["scores"].items()}
    return Sample(str(content["case"]), scores, dice, bool(content["is_clean"]))


def _mean_dice(cases: Sequence[CaseScores]) -> float:
    return summarise(cases)["dice"]["mean"] if cases else math.nan
