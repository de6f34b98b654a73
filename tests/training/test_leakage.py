"""Which cases a bundle has learned from is known from what its training wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.bundles import made_spec
from support.cases import balls, made_case

from medseg.bundle.bundle import Bundle
from medseg.training.leakage import find_learned_cases, list_learned_cases
from medseg.training.lineage import Lineage

HELD_OUT = {"cases": [{"case": "b"}, {"case": "c"}]}


def open_bundle(folder: Path, metrics: Any) -> Bundle:
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return Bundle(made_spec(), folder)


@pytest.mark.parametrize(
    ("metrics", "learned", "held_out", "is_certain"),
    [
        pytest.param(
            {**HELD_OUT, "learned_from": ["a"]}, "a", "b", True, id="recorded"
        ),
        pytest.param(
            HELD_OUT, "ad", "b", False, id="only held-out cases known"
        ),
        pytest.param(
            {**HELD_OUT, "folds": []}, "b", "", False, id="every fold"
        ),
        pytest.param(
            {"cases": [{"case": "x"}]}, "", "", False, id="other data"
        ),
        pytest.param({}, "", "", False, id="nothing known"),
        pytest.param([], "", "", False, id="damaged"),
    ],
)
def test_learned_cases(
    tmp_path: Path, metrics: Any, learned: str, held_out: str, is_certain: bool
) -> None:
    found = find_learned_cases(open_bundle(tmp_path, metrics), ["a", "b", "d"])
    assert found.learned == set(learned)
    assert found.held_out == set(held_out)
    assert is_certain == (not found.remark)


def test_what_the_parent_learned_from_counts(tmp_path: Path) -> None:
    open_bundle(tmp_path, {"learned_from": ["p"]})
    lineage = Lineage("organs", "1", "", "", str(tmp_path), ())
    case = made_case(balls(seed=1))
    assert list_learned_cases([case], None) == (case.case_id,)
    assert set(list_learned_cases([case], lineage)) == {case.case_id, "p"}
