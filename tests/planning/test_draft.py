"""A bundle is drafted from an inspected data set, with a note for each choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.fingerprints import CPU, case, fingerprint_of

from medseg.datasets.cases import Case, CaseList, Scan
from medseg.errors import Fault
from medseg.planning import DatasetDescription, InspectedDataset, draft_bundle
from medseg.planning.fingerprint import Fingerprint


def draft(
    root: Path, cases: int, *, groups: int | None = None, **said: Any
) -> dict[str, Any]:
    """Draft a bundle for made-up cases; ``bad`` of them cannot be used."""
    bad, fold = said.pop("bad", 0), said.pop("fold", None)
    names = [f"case_{number}" for number in range(cases + bad)]
    listed = []
    for number, name in enumerate(names):
        scan = Scan(name, ((root / f"{name}.nii.gz",),))
        listed.append(
            Case(
                scan,
                root / "label.nii.gz",
                fold,
                f"group {number % (groups or 99)}",
            )
        )
    faults = tuple(Fault(name, "torn") for name in names[cases:])
    fingerprint = Fingerprint(
        fingerprint_of(*(case() for _ in range(cases))).cases, faults
    )
    description = DatasetDescription(
        "liver", "", "", ("CT",), {1: "liver"}, **said
    )
    dataset = InspectedDataset(
        root, description, CaseList(tuple(listed)), fingerprint, False
    )
    return draft_bundle(dataset, root.parent / "bundles" / "bundle.json", CPU)


def test_the_data_are_named_relative_to_the_bundle(tmp_path: Path) -> None:
    content = draft(tmp_path / "data", 6)
    assert content["data"] == {"root": "../data"}
    assert {
        "network.dims",
        "training.patch",
        "inference.keep_largest",
    } <= content["notes"].keys()
    assert content["inference"] == {"keep_largest": None}


@pytest.mark.parametrize(
    ("cases", "folds"), [(1, 2), (2, 2), (4, 4), (5, None)]
)
def test_there_are_no_more_folds_than_cases(
    tmp_path: Path, cases: int, folds: int | None
) -> None:
    assert draft(tmp_path / "data", cases)["data"].get("folds") == folds


def test_folds_are_of_groups_of_usable_cases(tmp_path: Path) -> None:
    content = draft(tmp_path / "data", 6, groups=3)
    assert content["data"]["folds"] == 3
    assert "6 cases of 3 groups" in content["notes"]["data.group_by"]
    assert draft(tmp_path / "data", 4, bad=3)["data"]["folds"] == 4
    listed = draft(tmp_path / "data", 3, fold=0)
    assert "folds" not in listed["data"]
    assert "name the folds" in listed["notes"]["data.folds"]


def test_with_unlabelled_voxels_every_component_is_kept(tmp_path: Path) -> None:
    content = draft(tmp_path / "data", 6, ignore=9)
    assert content["data"]["ignore"] == 9
    assert "inference" not in content


@pytest.mark.parametrize(("cases", "named"), [(19, False), (20, True)])
def test_labels_of_one_component_in_twenty_cases_are_named(
    tmp_path: Path, cases: int, named: bool
) -> None:
    note = draft(tmp_path / "data", cases)["notes"]["inference.keep_largest"]
    assert ("One component in each of the" in note) == named
