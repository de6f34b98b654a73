"""Which cases a bundle has learned from is known from what its training wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.bundles import made_spec
from support.cases import balls, made_case

from medseg.bundle.bundle import Bundle
from medseg.bundle.hashes import hash_file
from medseg.datasets.dataset import Dataset
from medseg.training.leakage import (
    count_known_to_parent,
    explain_known_to_parent,
    find_learned_cases,
    join_learned_cases,
    list_learned_cases,
    list_learned_data_sets,
    states_training_set,
)
from medseg.training.lineage import Lineage
from medseg.training.report import LEARNED_DATA_SETS, UNKNOWN_CASES

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
            {**HELD_OUT, "learned_from": ["a", UNKNOWN_CASES]},
            "a",
            "b",
            False,
            id="its parent's cases unknown",
        ),
        pytest.param(
            {**HELD_OUT, "learned_from": [UNKNOWN_CASES], "folds": []},
            "b",
            "",
            False,
            id="folds without a record",
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


@pytest.mark.parametrize("metrics", [{}, HELD_OUT])
def test_a_parent_without_a_record_is_told_of(
    tmp_path: Path, metrics: Any
) -> None:
    open_bundle(tmp_path, metrics)
    lineage = Lineage("organs", "1", "", "", str(tmp_path), ())
    learned = list_learned_cases([made_case(balls(seed=1))], lineage)
    child = open_bundle(tmp_path, {"learned_from": learned})
    found = find_learned_cases(child, learned[:1])
    assert found.learned == set(learned[:1])
    assert "weights of another one that keeps no record" in found.remark


def write_listing(data: Path, cases: int) -> str:
    """Write a ``dataset.json``; return its hash."""
    data.mkdir()
    file = data / "dataset.json"
    file.write_text(json.dumps({"name": "organs", "numTraining": cases}))
    return hash_file(file)


def write_origin(folder: Path, digest: str) -> None:
    """Say in a bundle that other software trained it on a data set."""
    files = {"dataset.json": digest, "plans.json": "0" * 64}
    origin = {"software": "nnU-Net v2", "files": files}
    file = folder / "models" / "trained.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"origin": origin}))


def test_the_data_set_of_an_import_is_known_to_what_was_trained_from_it(
    tmp_path: Path,
) -> None:
    digest = write_listing(tmp_path / "data", 3)
    parent = tmp_path / "parent"
    write_origin(parent, digest)
    lineage = Lineage("organs", "1", "", "", str(parent), ())
    learned = list_learned_data_sets(lineage)
    assert learned == (digest,)
    assert list_learned_data_sets(None) == ()
    child = open_bundle(tmp_path, {LEARNED_DATA_SETS: list(learned)})
    assert states_training_set(child, tmp_path / "data")
    # And to what was trained from that.
    lineage = Lineage("organs", "2", "", "", str(tmp_path), ())
    assert list_learned_data_sets(lineage) == (digest,)
    (tmp_path / "data" / "dataset.json").write_text('{"name": "others"}')
    assert not states_training_set(child, tmp_path / "data")


def test_held_out_cases_that_the_parent_learned_from_are_counted(
    tmp_path: Path,
) -> None:
    known = made_case(balls(seed=1))
    new = replace(known, case_id="another")
    dataset = Dataset([], [known, new], [], "")
    data = tmp_path / "data"
    digest = write_listing(data, 2)
    metrics = {"learned_from": [known.case_id]}
    open_bundle(tmp_path, metrics)
    lineage = Lineage("organs", "1", "", "", str(tmp_path), ())
    assert count_known_to_parent(dataset, None, data) == 0
    assert count_known_to_parent(dataset, lineage, data) == 1
    write_origin(tmp_path, digest)
    assert count_known_to_parent(dataset, lineage, data) == 2
    # A copy of the file beside other cases.
    more = Dataset([known], [new], [], "")
    assert count_known_to_parent(more, lineage, data) == 1
    other = Dataset([known, known], [new], [], "")
    assert count_known_to_parent(other, lineage, data) == 0
    assert "from 2 of the held-out cases" in explain_known_to_parent(2)


def test_a_fold_without_a_record_is_not_taken_for_one_that_learned_nothing() -> (
    None
):
    assert join_learned_cases([("a", "b"), ("b", "c")]) == ("a", "b", "c")
    assert join_learned_cases([("a",), ()]) == ("a", UNKNOWN_CASES)
