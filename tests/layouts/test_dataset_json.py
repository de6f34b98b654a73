"""What a ``dataset.json`` says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.datasets import a_spec, an_item, an_msd_list, touch

from medseg.datasets.cases import find_cases
from medseg.errors import DatasetError


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe{", "not UTF-8"),
        (b"[1, 2]", "holds a list"),
        (b'{"training": 3}', "is a number"),
        (b'{"training": {}}', "is an object"),
        (b'{"training": []}', "no case is listed"),
        (b'{"training": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"training": [' + b"9" * 5000 + b"]}", "not valid JSON"),
    ],
)
def test_a_malformed_dataset_json_is_one_clear_error(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "dataset.json").write_bytes(content)

    with pytest.raises(DatasetError, match=reason):
        find_cases(tmp_path, a_spec(format="msd"))


def test_a_dataset_json_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "dataset.json").open("wb") as file:
        file.truncate(10**9)

    with pytest.raises(DatasetError, match="too many for a list"):
        find_cases(tmp_path, a_spec())


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    root = an_msd_list(tmp_path, [an_item("a")])
    (root / "dataset.json").write_bytes(
        b"\xef\xbb\xbf" + (root / "dataset.json").read_bytes()
    )

    assert len(find_cases(root, a_spec()).cases) == 1


@pytest.mark.parametrize("layout", ["msd", "nnunet"])
def test_a_list_that_says_regions_lists_its_cases(
    layout: str, tmp_path: Path
) -> None:
    labels = {"background": 0, "whole tumor": [1, 2], "core": [2], "ignore": 3}
    more = {"labels": labels, "regions_class_order": [1, 2]}
    if layout == "msd":
        root = an_msd_list(tmp_path, [an_item("a")], **more)
    else:
        touch(
            tmp_path / "imagesTr" / "a_0000.nii.gz",
            tmp_path / "labelsTr" / "a.nii.gz",
        )
        (tmp_path / "dataset.json").write_text(json.dumps(more))
        root = tmp_path
    found = find_cases(root, a_spec(ignore=3))
    assert [case.name for case in found.cases] == ["a"]
    assert found.warnings == ()
    assert "set data.ignore to 3" in find_cases(root, a_spec()).warnings[0]
