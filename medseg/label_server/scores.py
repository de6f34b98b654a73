"""How good the served version's results probably are, case by case: what to look at first."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from medseg.inference.segmentation import Segmentation
from medseg.label_server.state import StateFolder
from medseg.label_server.store import Store
from medseg.label_server.versions import Version
from medseg.label_server.worklist import (
    CaseState,
    enter_state,
    read_qualities,
)
from medseg.names import normalize_name

CaseQuality = Mapping[str, Any]
"""The quality of one case's result, as ``summarise_quality`` returns it."""


def summarise_quality(segmentation: Segmentation) -> dict[str, Any]:
    """Return the quality of a result as plain values, for clients and for keeping.

    ``shown`` is what people read: the expected Dice, or the words in its place. ``expected``,
    ``lower`` and ``labels`` hold numbers only where people are shown them. ``rank`` orders cases,
    whatever its value means; it is 0 for a result without any label: where the network sees nothing
    someone should look first. ``reasons`` say why to review, ``warnings`` are those of the
    segmentation.
    """
    quality = segmentation.quality
    shown = quality.shown
    labels = {name: _round(value) for name, value in shown.labels.items()}
    return {
        "rank": _round(quality.expected) or 0.0,
        "shown": shown.text,
        "expected": _round(shown.expected),
        "lower": _round(shown.lower),
        "is_calibrated": quality.is_calibrated,
        "is_made_up": quality.is_made_up,
        "review": shown.review,
        "reasons": list(shown.reasons),
        "remark": shown.remark,
        "labels": labels,
        "warnings": list(segmentation.warnings),
    }


def _round(dice: float | None) -> float | None:
    return None if dice is None else round(dice, 4)


class Scores:
    """The qualities of one version's results, kept in the store.

    Args:
        state: The state folder.
        version: Whose results.
    """

    def __init__(self, state: StateFolder, version: Version) -> None:
        self._store = Store(state)
        self._version = version.name

    def read(self) -> dict[str, dict[str, Any]]:
        """Return case → quality, of the cases scored so far."""
        with self._store.read() as connection:
            return read_qualities(connection, self._version)

    def add(self, case: str, quality: CaseQuality) -> None:
        """Keep the quality of a case, which now has a proposal; an earlier one is replaced."""
        name = normalize_name(case)
        text = json.dumps(quality)
        with self._store.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO qualities VALUES (?, ?, ?)",
                (name, self._version, text),
            )
            enter_state(connection, name, CaseState.PROPOSED, "", time.time())


def order_worst_first(
    cases: Sequence[str], scores: Mapping[str, CaseQuality]
) -> list[str]:
    """Order cases by expected Dice, the lowest first; cases not scored yet come last.

    Examples:
        >>> order_worst_first(["a", "b", "c"], {"b": {"rank": 0.9}, "c": {"rank": 0.4}})
        ['c', 'b', 'a']
    """
    scored = [case for case in cases if case in scores]
    unscored = [case for case in cases if case not in scores]

    def expect(case: str) -> float:
        score = scores[case]
        # An earlier release kept what it ordered by as the expected Dice.
        return float(score.get("rank", score.get("expected", 1.0)))

    scored.sort()
    # A stable sort: equal ones stay in the order of their names.
    scored.sort(key=expect)
    return scored + sorted(unscored)
