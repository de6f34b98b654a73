"""What a decision on the speed has tried, kept so that one that was interrupted goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medseg._support.files import write_atomically
from medseg.bundle.spec import (
    SpeedFinding,
    SpeedLimitsSpec,
    SpeedSetting,
    SpeedTrial,
)


class SpeedMemory:
    """What was tried, and what came of it.

    Args:
        file: Where it is kept.
        conditions: Hash of all that a trial follows from, besides its setting and the number of
            cases; what was tried under others is forgotten.
    """

    def __init__(self, file: Path, conditions: str) -> None:
        self._file = file
        self._content: dict[str, Any] = {
            "conditions": conditions,
            "trials": {},
        }
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        is_known = isinstance(content, dict)
        if is_known and content.get("conditions") == conditions:
            self._content.update(content)

    @property
    def seconds(self) -> float:
        """The time that was given first: a run that is resumed has trained for a moment."""
        return float(self._content.get("seconds", 0.0))

    def keep_seconds(self, seconds: float) -> None:
        """Keep the time that was given."""
        self._content["seconds"] = seconds
        self._write()

    def find_trial(
        self, setting: SpeedSetting, cases: int
    ) -> SpeedTrial | None:
        """Return what a setting did to the same cases, if it was tried."""
        stored = self._content["trials"].get(f"{setting.name}, {cases} cases")
        if stored is None:
            return None
        try:
            return SpeedTrial.model_validate(stored)
        except ValidationError:
            return None

    def keep_trial(self, trial: SpeedTrial, cases: int) -> None:
        """Keep what a setting did."""
        name = f"{trial.setting.name}, {cases} cases"
        self._content["trials"][name] = trial.model_dump(mode="json")
        self._write()

    def find_finding(self, limits: SpeedLimitsSpec) -> SpeedFinding | None:
        """Return what was decided within limits, if it was: what follows may be interrupted."""
        stored = self._content.get("finding")
        is_within = self._content.get("limits") == limits.model_dump()
        if stored is None or not is_within:
            return None
        try:
            return SpeedFinding.model_validate(stored)
        except ValidationError:
            return None

    def keep_finding(
        self, finding: SpeedFinding, limits: SpeedLimitsSpec
    ) -> None:
        """Keep what was decided within limits."""
        self._content["limits"] = limits.model_dump()
        self._content["finding"] = finding.model_dump(mode="json")
        self._write()

    def _write(self) -> None:
        write_atomically(self._file, json.dumps(self._content, indent=2))
