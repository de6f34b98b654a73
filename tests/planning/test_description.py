"""Names of channels and labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.fingerprints import fingerprint_of_values

from medseg.errors import DatasetError
from medseg.planning import (
    Notes,
    read_description,
)


def write_listing(folder: Path, **said: Any) -> Path:
    (folder / "dataset.json").write_text(json.dumps(said))
    return folder


def test_both_ways_of_naming_labels_are_read(tmp_path: Path) -> None:
    wanted = {1: "liver", 2: "tumour"}
    msd = {"0": "background", "1": "liver", "2": "tumour"}
    assert (
        read_description(write_listing(tmp_path, labels=msd)).label_names
        == wanted
    )
    raw = {"background": 0, "liver": 1, "tumour": 2}
    found = read_description(
        write_listing(tmp_path, labels=raw, channel_names={"1": "b", "0": "a"})
    )
    assert found.label_names == wanted
    assert found.channel_names == ("a", "b")


def test_what_cannot_be_learned_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"'regions_class_order' must list 1 .*are whole"
    ):
        read_description(
            write_listing(tmp_path, labels={"background": 0, "whole": [1, 2]})
        )


def test_a_value_to_ignore_is_no_label(tmp_path: Path) -> None:
    for said in (
        {"background": 0, "a": 1, "ignore": 2},
        {"0": "x", "1": "a", "2": "Ignore"},
    ):
        found = read_description(write_listing(tmp_path, labels=said))
        assert (found.label_names, found.ignore) == ({1: "a"}, 2)


def test_values_that_the_list_does_not_name_are_paired_or_named(
    tmp_path: Path,
) -> None:
    fingerprint = fingerprint_of_values(255)
    notes: Notes = {}
    named = read_description(write_listing(tmp_path, labels={"1": "heart"}))
    found = named.describe_labels(fingerprint, notes)
    assert found == [{"index": 1, "name": "heart", "value": 255}]
    assert "taken for the same" in notes["labels"]
    bare = read_description(write_listing(tmp_path))
    found = bare.describe_labels(fingerprint, notes)
    assert found == [{"index": 1, "name": "label_255", "value": 255}]
    assert "[255]" in notes["labels"]


def test_a_value_keeps_the_name_that_the_list_gives_it(tmp_path: Path) -> None:
    sides = read_description(
        write_listing(tmp_path, labels={"1": "left", "2": "right"})
    )
    notes: Notes = {}
    found = sides.describe_labels(fingerprint_of_values(2, 3), notes)
    assert [(la["value"], la["name"]) for la in found] == [
        (2, "right"),
        (3, "label_3"),
    ]
    assert "values [3]" in notes["labels"]
    assert "No case has left" in notes["labels"]
    named = {"1": "core", "2": "edema", "3": "enhancing"}
    parts = read_description(
        write_listing(tmp_path, labels=named)
    ).describe_labels(fingerprint_of_values(1, 2, 4), notes)
    assert [la["name"] for la in parts] == ["core", "edema", "enhancing"]
    assert "taken for the same" in notes["labels"]
