"""How good the served version's results probably are, case by case: what to look at first."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from medseg._support.files import write_atomically
from medseg.inference.segmentation import Segmentation
from medseg.label_server.state import StateFolder
from medseg.label_server.versions import Version
from medseg.names import normalize_name

CaseQuality = Mapping[str, Any]
"""The quality of one case's result, as ``summarise_quality`` returns it."""

_WRITING = threading.Lock()


def summarise_quality(segmentation: Segmentation) -> dict[str, Any]:
    """Return the quality of a result as plain values, for clients and for keeping.

    ``expected`` is the expected Dice. It is 0 for a result without any label: where the network
    sees nothing someone should look first. ``warnings`` are those of the segmentation.
    """
    quality = segmentation.quality
    labels = {}
    for name, label in quality.labels.items():
        labels[name] = _round(label.expected)
    return {
        "expected": _round(quality.expected) or 0.0,
        "lower": _round(quality.lower),
        "is_calibrated": quality.is_calibrated,
        "review": quality.review,
        "labels": labels,
        "warnings": list(segmentation.warnings),
    }


def _round(dice: float | None) -> float | None:
    return None if dice is None else round(dice, 4)


class Scores:
    """The qualities of one version's results, kept in the state folder.

    Args:
        state: The state folder.
        version: Whose results.
    """

    def __init__(self, state: StateFolder, version: Version) -> None:
        self._file = state.scores / f"{version.name}.json"

    def read(self) -> dict[str, dict[str, Any]]:
        """Return case → quality, of the cases scored so far."""
        try:
            scores = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # none kept, or torn from outside; they are computed again
        return scores if isinstance(scores, dict) else {}

    def add(self, case: str, quality: CaseQuality) -> None:
        """Keep the quality of a case; an earlier one is replaced."""
        with _WRITING:
            scores = {**self.read(), normalize_name(case): quality}
            write_atomically(self._file, json.dumps(scores, indent=1) + "\n")


def order_worst_first(
    cases: Sequence[str], scores: Mapping[str, CaseQuality]
) -> list[str]:
    """Order cases by expected Dice, the lowest first; cases not scored yet come last.

    Examples:
        >>> order_worst_first(["a", "b", "c"], {"b": {"expected": 0.9}, "c": {"expected": 0.4}})
        ['c', 'b', 'a']
    """
    scored = [case for case in cases if case in scores]
    unscored = [case for case in cases if case not in scores]

    def expect(case: str) -> float:
        return float(scores[case].get("expected", 1.0))

    scored.sort()
    # A stable sort: equal ones stay in the order of their names.
    scored.sort(key=expect)
    return scored + sorted(unscored)
