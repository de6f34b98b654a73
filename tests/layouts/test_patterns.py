"""Patterns that say which files are images and labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.datasets import a_spec, touch

from medseg.datasets.cases import find_cases
from medseg.errors import DatasetError
from medseg.layouts import Selection, list_cases
from medseg.layouts.patterns import parse_pattern


@pytest.mark.parametrize(
    ("pattern", "path", "parts"),
    [
        ("scans/*.nii.gz", "scans/p7.nii.gz", ("p7",)),
        ("scans/*.nii.gz", "scans/deep/p7.nii.gz", None),
        ("**/scans/*.nii", "a/b/scans/p7.nii", ("a/b", "p7")),
        ("**/scans/*.nii", "scans/p7.nii", ("", "p7")),
        ("*_seg.nii", "a/p7_seg.nii", ("a", "p7")),
        ("./p?.png", "p7.png", ("7",)),
        ("p[0-4].png", "p7.png", None),
        ("./p[!0-4].png", "p7.png", ("7",)),
        ("scan (1).png", "scan (1).png", ("",)),
        ("café/*.png", "cafe\u0301/a.png", ("a",)),
    ],
)
def test_wildcards_stand_for_parts_of_paths(
    pattern: str, path: str, parts: tuple[str, ...] | None
) -> None:
    assert parse_pattern(pattern).match(path) == parts


def test_equal_parts_pair_images_of_any_name_with_labels(
    tmp_path: Path,
) -> None:
    for name in "abc":
        touch(
            tmp_path / f"x/{name}/one.nii",
            tmp_path / f"x/{name}/two.nii",
            tmp_path / f"y/{name}-drawn.nii",
        )
    spec = a_spec(
        2, images=["x/*/one.nii", "x/*/two.nii"], labels="y/*-drawn.nii"
    )
    found = find_cases(tmp_path, spec)
    assert found.faults == ()
    assert [case.name for case in found.cases] == ["a", "b", "c"]
    first = found.cases[0]
    assert [part[0].name for part in first.scan.parts] == ["one.nii", "two.nii"]
    assert first.label == tmp_path / "y/a-drawn.nii"


def test_one_wildcard_more_is_the_name_of_a_structure(tmp_path: Path) -> None:
    for name in "abc":
        touch(tmp_path / f"{name}.nii")
        touch(tmp_path / f"m/{name}/lung.nii", tmp_path / f"m/{name}/heart.nii")
    selection = Selection(
        image_patterns=("./*.nii",), label_pattern="m/*/*.nii"
    )
    listing = list_cases(tmp_path, "auto", selection)
    assert listing.label_names == {1: "heart", 2: "lung"}
    assert len(listing.cases) == 3


def test_patterns_that_fit_nothing_or_each_other_not_are_refused(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "a/1.nii", tmp_path / "b/1.nii")
    for images, labels, reason in (
        ("a/*.nii", "c/*.nii", "fits a pattern.*c/"),
        ("a/1.nii", "*/*.nii", "wildcards"),
    ):
        selection = Selection(image_patterns=(images,), label_pattern=labels)
        with pytest.raises(DatasetError, match=reason):
            list_cases(tmp_path, "auto", selection)


def test_a_label_pattern_alone_chooses_among_labels_or_names_them(
    tmp_path: Path,
) -> None:
    for name in ("1L", "2R"):
        touch(
            tmp_path / f"Image_{name}.jpg",
            tmp_path / f"Image_{name}_1stHO.png",
            tmp_path / f"Image_{name}_2ndHO.png",
        )
    found = find_cases(tmp_path, a_spec(labels="*_1stHO.png"))
    assert [case.label.name for case in found.cases] == [
        "Image_1L_1stHO.png",
        "Image_2R_1stHO.png",
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"format": "msd", "labels": "*"}, "'tree'"),
        (
            {"format": "bids", "columns": {"image": ["a"], "label": ["b"]}},
            "csv",
        ),
    ],
)
def test_a_bundle_with_patterns_that_its_layout_ignores_is_refused(
    data: dict[str, object], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        a_spec(**data)
