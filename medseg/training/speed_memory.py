"""What a decision on the speed has tried, kept so that one that was interrupted goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medseg._support.files import write_atomically
from medseg.bundle.spec import SpeedFinding, SpeedSetting, SpeedTrial


class SpeedMemory:
    """What was tried, and what came of it.

    Args:
        file: Where it is kept.
        network: Hash of the network that it is about.
    """

    def __init__(self, file: Path, network: str) -> None:
        self._file = file
        self._content: dict[str, Any] = {"network": network, "trials": {}}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if isinstance(content, dict) and content.get("network") == network:
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

    def find_finding(self) -> SpeedFinding | None:
        """Return what was decided, if it was: what comes after may have been interrupted."""
        stored = self._content.get("finding")
        if stored is None:
            return None
        try:
            return SpeedFinding.model_validate(stored)
        except ValidationError:
            return None

    def keep_finding(self, finding: SpeedFinding) -> None:
        """Keep what was decided."""
        self._content["finding"] = finding.model_dump(mode="json")
        self._write()

    def _write(self) -> None:
        write_atomically(self._file, json.dumps(self._content, indent=2))
