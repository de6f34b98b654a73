"""How good the served version's results probably are, case by case: what to look at first."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from medseg._support.files import write_atomically
from medseg.inference.segmentation import Segmentation
from medseg.label_server.state import State
from medseg.label_server.versions import Version

_WRITING = threading.Lock()


def quality_of(found: Segmentation) -> dict[str, Any]:
    """Return the quality of a result as plain values, for clients and for keeping.

    ``expected`` is the expected Dice. A result in which nothing was found expects 0: where the
    network sees nothing someone should look first.
    """
    quality = found.quality
    return {
        "expected": round(quality.expected, 4) if quality.expected is not None else 0.0,
        "lower": round(quality.lower, 4) if quality.lower is not None else None,
        "is_calibrated": quality.is_calibrated,
        "review": quality.review,
        "labels": {name: round(label.expected, 4) for name, label in quality.labels.items()},
    }


class Scores:
    """The qualities of one version's results, kept in the state folder.

    Args:
        state: The state folder.
        version: Whose results.
    """

    def __init__(self, state: State, version: Version) -> None:
        self._file = state.scores / f"{version.name}.json"

    def read(self) -> dict[str, dict[str, Any]]:
        """Return case → quality, of the cases scored so far."""
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # none kept, or torn from outside; they are made anew
        return found if isinstance(found, dict) else {}

    def keep(self, qualities: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep the qualities of some cases."""
        with _WRITING:
            write_atomically(self._file, json.dumps({**self.read(), **qualities}, indent=1) + "\n")


def worst_first(cases: Sequence[str], scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Order cases by expected Dice, the lowest first; cases not scored yet come last."""
    return sorted(cases, key=lambda case: (case not in scores, _expected(scores.get(case)), case))


def _expected(quality: Mapping[str, Any] | None) -> float:
    return float((quality or {}).get("expected", 1.0))
