"""Files of a folder: in one order, through links, and never in circles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medseg._support.folders import (
    explain_unreadable,
    find_listed,
    list_files,
    refuse_file,
    resolve_path,
)
from medseg.errors import Fault, OutputError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in list_files(root).files]


def test_files_are_sorted_by_path_and_hidden_ones_left_out(
    tmp_path: Path,
) -> None:
    touch(
        tmp_path / "b" / "1",
        tmp_path / "a.txt",
        tmp_path / "B",
        tmp_path / "a" / "2",
    )
    touch(
        tmp_path / ".hidden",
        tmp_path / "b" / "._1",
        tmp_path / ".git" / "config",
    )
    assert names(tmp_path) == ["B", "a/2", "a.txt", "b/1"]


def test_the_order_is_that_of_the_parts_of_paths(tmp_path: Path) -> None:
    files = ["a/b/c", "a/b.x", "a/b", "a-b/c", "a.x", "ab", "z/z/z", "é/a"]
    touch(*(tmp_path / file for file in files if file != "a/b"))
    found = list_files(tmp_path).files
    parts = [file.relative_to(tmp_path).parts for file in found]
    assert parts == sorted(parts)
    assert len(parts) == len(files) - 1


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(tmp_path / "elsewhere" / "x", root / "a")
    (root / "first").symlink_to(tmp_path / "elsewhere")
    (root / "second").symlink_to(tmp_path / "elsewhere")
    assert names(root) == ["a", "first/x"]
    assert list_files(root).left_out == ()


def test_a_link_to_a_folder_above_ends_and_is_said(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "b")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    listing = list_files(tmp_path)
    assert names(tmp_path) == ["a/b"]
    assert listing.left_out == (
        Fault("a/up", "is a link to a folder that it lies in"),
    )


def test_a_link_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    (fault,) = list_files(tmp_path).left_out
    assert fault == Fault("gone", "is a link to something that does not exist")


def test_a_folder_that_cannot_be_read_is_said_without_its_path(
    tmp_path: Path,
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every folder")
    (tmp_path / "locked").mkdir(mode=0)
    (fault,) = list_files(tmp_path).left_out
    assert fault == Fault(
        "locked", "the folder cannot be read: Permission denied"
    )


def test_why_a_folder_cannot_be_read_is_told_without_an_exception(
    tmp_path: Path,
) -> None:
    assert explain_unreadable(tmp_path) == ""
    assert explain_unreadable(tmp_path / "absent") == ""
    if os.name != "nt":  # there, too long a name is none
        long = tmp_path / ("x" * 3000)
        assert "too long" in explain_unreadable(long)
    if os.geteuid() == 0:
        return
    for mode in (0, 0o400):
        (tmp_path / oct(mode)).mkdir(mode=mode)
        reason = explain_unreadable(tmp_path / oct(mode))
        assert reason == "Permission denied"
    closed = tmp_path / "not listed"
    closed.mkdir(mode=0o100)
    assert explain_unreadable(closed) == "Permission denied"
    assert explain_unreadable(closed, by_name=True) == ""


def test_folders_are_skipped_by_a_rule_and_with_its_reason(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "results" / "x", tmp_path / "scans" / "y")
    listing = list_files(
        tmp_path, lambda folder: "results" if folder.name == "results" else None
    )
    assert [path.name for path in listing.files] == ["y"]
    assert listing.skipped == (Fault("results", "results"),)


def test_links_in_a_circle_lead_nowhere_and_raise_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert not resolve_path(tmp_path / "a").exists()
    (tmp_path / "c").symlink_to(tmp_path)
    assert resolve_path(tmp_path / "c" / "d") == tmp_path.resolve() / "d"


def test_a_list_made_on_windows_is_read_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a.nii", "ä.nii"):
        (tmp_path / "images" / name).touch()
        listed = find_listed(tmp_path, f"images\\{name}")
        assert listed.is_file()


@pytest.mark.skipif(os.name == "nt", reason="there, no name has one")
def test_a_backslash_in_a_name_stays(tmp_path: Path) -> None:
    (tmp_path / "a\\b.nii").touch()
    assert find_listed(tmp_path, "a\\b.nii").name == "a\\b.nii"


def test_a_file_is_refused_where_a_folder_is_to_be_written(
    tmp_path: Path,
) -> None:
    file = tmp_path / "notes.txt"
    file.touch()
    with pytest.raises(OutputError, match="a folder to write to is needed"):
        refuse_file(file)
    for folder in (tmp_path, tmp_path / "new", None):
        refuse_file(folder)


def test_paths_below_the_root_of_a_disk_begin_with_it_once(
    tmp_path: Path,
) -> None:
    root = Path(tmp_path.anchor)
    top = root / tmp_path.parts[1]
    met = []

    def skip(folder: Path) -> str | None:
        met.append(folder)
        return None if folder == top else "not here"

    found = list_files(root, skip).files
    assert top in met
    assert any(folder.parent == top for folder in met)
    assert not [path for path in (*met, *found) if str(path)[:2] == "//"]
