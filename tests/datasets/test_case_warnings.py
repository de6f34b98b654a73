"""Many cases with the same warning make one line."""

from __future__ import annotations

from medseg.datasets.case_warnings import list_warnings
from medseg.datasets.mask_colours import EdgeShares


def test_what_few_cases_have_names_each() -> None:
    lines = list_warnings({"a": ["odd"], "b": ["odd", "flat"], "c": []}, 3)
    assert list(lines) == ["a: odd", "b: odd", "b: flat"]


def test_what_many_cases_have_is_one_line() -> None:
    by_case = {f"case{n}": ["odd"] for n in range(20)}
    (line,) = list_warnings(by_case, 30)
    assert line.startswith("20 of 30 cases (case0, case1")
    assert line.endswith("and 15 more): odd")


def test_warnings_that_differ_in_figures_alone_are_one_line() -> None:
    by_case = {f"c{n}": [f"has values from -{n}.5e2"] for n in range(4)}
    (line,) = list_warnings(by_case, 9)
    assert line == (
        "4 of 9 cases (c0, c1, c2, c3): has values from -3.5e2…-0.5e2"
    )


def test_the_worst_figure_is_seen_whichever_case_has_it() -> None:
    shares = ("1.5", "98.0", "1,204.5", "2.0")
    by_case = {
        f"c{n}": [f"T1: {share} % of 7 voxels, version 1.2.{n}"]
        for n, share in enumerate(shares)
    }
    (line,) = list_warnings(by_case, 4)
    assert line.endswith("T1: 1.5…1,204.5 % of 7 voxels, version 1.2.0…1.2.3")


def test_figures_of_few_cases_stand_by_each() -> None:
    lines = list_warnings({"a": ["from -1", "from -2"], "b": ["from -2"]}, 2)
    assert list(lines) == ["a: from -1", "a: from -2", "b: from -2"]


def test_soft_edges_of_all_masks_are_added_up() -> None:
    by_case = {
        "a": [EdgeShares(0.01, 0.002).describe()],
        "b": ["odd", EdgeShares(0.03, 0.01).describe()],
    }
    lines = list(list_warnings(by_case, 4))
    assert lines[0] == "b: odd"
    assert lines[1].startswith("2 of 4 masks hold colours or grey levels")
    assert "Most in b: 3.00% and 1.00%" in lines[1]
