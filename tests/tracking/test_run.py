"""Keys that MLflow takes, and scores under them."""

from __future__ import annotations

import pytest

from medseg.tracking.run import flatten_scores, to_distinct_keys, to_key


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("liver", "liver"),
        ("lésion", "lésion"),
        ("a/b", "a_b"),
        ("tumour (core)", "tumour _core_"),
        ("..", "_"),
        ("", "_"),
        (" x. ", "x"),
        ("a-b.c d:e", "a-b.c d:e"),
        ("x" * 300, "x" * 250),
    ],
)
def test_what_mlflow_refuses_in_a_key_is_replaced(name: str, key: str) -> None:
    assert to_key(name) == key


def test_names_that_become_equal_are_numbered_and_none_is_lost() -> None:
    names = {"a/b": 1.0, "a(b": 2.0, "a_b": 3.0, "c": 4.0}
    assert to_distinct_keys(names) == {
        "a_b": 1.0,
        "a_b_2": 2.0,
        "a_b_3": 3.0,
        "c": 4.0,
    }
    long = to_distinct_keys({"x" * 300: 1.0, "x" * 299: 2.0})
    assert sorted(map(len, long)) == [200, 202]


def test_scores_are_grouped_by_stage_and_metric() -> None:
    scores = {"dice": {"liver": 0.9, "mean": 0.8}, "hd95": {"mean": 3.0}}
    assert flatten_scores("val", scores) == {
        "val/dice/liver": 0.9,
        "val/dice/mean": 0.8,
        "val/hd95/mean": 3.0,
    }
