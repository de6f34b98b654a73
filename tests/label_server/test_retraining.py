"""How versions learn from submitted labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.bundles import content, made_spec, write_json

from medseg.bundle.bundle import load_bundle
from medseg.label_server.retraining import average_dice, make_overrides
from medseg.metrics.metrics import score_case


def test_a_planned_bundles_time_does_not_replace_the_steps_asked_for(tmp_path: Path) -> None:
    planned = write_json(tmp_path, content(training={"budget_minutes": 20}))
    training = load_bundle(planned, make_overrides(40, None)).spec.training
    assert (training.steps, training.budget_minutes) == (40, None)


def test_nothing_found_where_nothing_is_beats_something_found() -> None:
    labels, nothing = made_spec().label_set, np.zeros((4, 4, 4), np.uint8)
    something = nothing.copy()
    something[1, 1, 1] = 1
    right = average_dice([score_case(nothing, nothing, labels, (1, 1, 1))])
    wrong = average_dice([score_case(something, nothing, labels, (1, 1, 1))])
    assert (right, wrong) == (1.0, 0.0)
