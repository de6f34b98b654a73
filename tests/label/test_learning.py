"""How versions learn from submitted labels."""

from __future__ import annotations

from pathlib import Path

from made_bundles import content, write_json

from medseg.label.learning import _overrides
from medseg.tools.bundle import load_bundle


def test_a_planned_bundles_time_does_not_replace_the_steps_asked_for(tmp_path: Path) -> None:
    planned = write_json(tmp_path, content(training={"budget_minutes": 20}))
    training = load_bundle(planned, _overrides(40, None)).spec.training
    assert (training.steps, training.budget_minutes) == (40, None)
