"""A table of colours beside masks must give labels the colours that the bundle does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.bundles import made_spec

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import CaseList, find_cases
from medseg.datasets.integrity import check_cases
from medseg.datasets.statements import find_standing

RED, BLUE, GREEN = [200, 0, 10], [0, 10, 200], [0, 200, 10]


def a_bundle(**colours: Any) -> BundleSpec:
    labels = [
        {"index": index, "name": name, "colour": colour}
        for index, (name, colour) in enumerate(colours.items(), start=1)
    ]
    return made_spec(
        labels=labels,
        channels=[{"name": "red"}, {"name": "green"}, {"name": "blue"}],
        preprocessing={"input": "picture"},
        network={"dims": 2},
        training={"patch": [16, 16]},
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One picture, and its mask in red and blue."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (24, 24, 3)).astype(np.uint8)
    mask = np.zeros((24, 24, 3), np.uint8)
    mask[:9], mask[12:] = RED, BLUE
    for folder, array in (("images", picture), ("labels", mask)):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "a.png")
    return tmp_path


def write_table(folder: Path, **colours: list[int]) -> None:
    lines = ["name,r,g,b", "background,0,0,0"]
    for name, (red, green, blue) in colours.items():
        lines.append(f"{name},{red},{green},{blue}")
    (folder / "class_dict.csv").write_text("\n".join(lines))


def faults(cases: CaseList, spec: BundleSpec) -> list[str]:
    report = check_cases(cases, spec)
    standing = find_standing(cases.contradictions, report.labels)
    return [fault.what for fault in (*standing, *report.faults)]


def test_equal_colours_are_not_mentioned(data: Path) -> None:
    write_table(data, Road=RED, CAR=BLUE, tree=GREEN)
    spec = a_bundle(road=RED, car=BLUE)
    cases = find_cases(data, spec)
    assert (cases.contradictions, cases.warnings) == ((), ())
    assert faults(cases, spec) == []


def test_swapped_colours_are_a_fault_that_names_both(data: Path) -> None:
    write_table(data / "labels", road=BLUE, car=RED)
    spec = a_bundle(road=RED, car=BLUE)
    road, car = faults(find_cases(data, spec), spec)
    assert (
        "gives road the colour (0, 10, 200), and the bundle (200, 0, 10)"
        in road
    )
    assert "gives car the colour (200, 0, 10)" in car
    trusted = find_cases(data, spec, trust_values=True)
    assert faults(trusted, spec) == []


def test_masks_settle_which_of_two_tables_is_right(data: Path) -> None:
    write_table(data, road=GREEN)
    spec = a_bundle(road=RED, car=BLUE)
    assert faults(find_cases(data, spec), spec) == []
    wrong = a_bundle(road=GREEN, car=BLUE)
    write_table(data, road=RED)
    first, *others = faults(find_cases(data, wrong), wrong)
    assert "gives road the colour (200, 0, 10)" in first
    assert others


def test_labels_whose_colours_nobody_chose_are_not_compared(
    data: Path,
) -> None:
    write_table(data, liver=GREEN)
    assert find_cases(data, made_spec()).contradictions == ()
