"""The version is the tag's, or else the one that the change log has under way."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "workflows" / "release" / "version.py"))
find_version = SCRIPT["find_version"]

needs_git = pytest.mark.skipif(not shutil.which("git"), reason="needs git")


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(
        ["git", "-C", folder, *who, *arguments], check=True, capture_output=True
    )


def commit(folder: Path, when: str = "unreleased") -> None:
    text = f"# Changes\n\n## 1.3.0 ({when})\n\n## 1.2.0 (2026-01-01)\n"
    (folder / "CHANGELOG.md").write_text(text, encoding="utf-8")
    git(folder, "add", "--all")
    git(folder, "commit", "--allow-empty", "--message", "x")


@needs_git
def test_a_tag_is_the_version_and_commits_behind_it_are_the_next_ones(
    tmp_path: Path,
) -> None:
    git(tmp_path, "init")
    commit(tmp_path)
    git(tmp_path, "tag", "nightly-9")
    untagged = find_version(tmp_path)
    assert untagged.startswith("1.3.0.dev0+g")
    commit(tmp_path, when="2026-02-01")
    assert find_version(tmp_path).startswith("1.3.1.dev0+g")
    git(tmp_path, "tag", "v1.3.0")
    assert find_version(tmp_path) == "1.3.0"
    commit(tmp_path, when="2026-02-01")
    commit(tmp_path, when="2026-02-01")
    assert find_version(tmp_path).startswith("1.3.1.dev2+g")


@needs_git
def test_a_shallow_clone_goes_by_the_change_log(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    git(whole, "init")
    commit(whole)
    git(whole, "tag", "v1.2.0")
    commit(whole)
    git(tmp_path, "clone", "--depth", "1", whole.as_uri(), "shallow")
    assert find_version(tmp_path / "shallow").startswith("1.3.0.dev0+g")


@needs_git
def test_a_folder_within_another_project_is_not_of_its_tag(
    tmp_path: Path,
) -> None:
    git(tmp_path, "init")
    commit(tmp_path)
    git(tmp_path, "tag", "v9.0.0")
    inner = tmp_path / "medseg"
    inner.mkdir()
    shutil.copy(tmp_path / "CHANGELOG.md", inner)
    assert find_version(inner) == "1.3.0.dev0"


def test_a_source_archive_says_its_version(tmp_path: Path) -> None:
    text = (
        "Metadata-Version: 2.4\nName: medseg\nVersion: 1.2.0rc1\n\nVersion: 7"
    )
    (tmp_path / "PKG-INFO").write_text(text, encoding="utf-8")
    assert find_version(tmp_path) == "1.2.0rc1"


def test_release_candidates_count() -> None:
    read = SCRIPT["read_description"]
    assert read("v1.2.0rc1-0-gabc") == "1.2.0rc1"
    assert read("v1.2.0rc1-5-gabc") == "1.2.0rc2.dev5+gabc"
    with pytest.raises(ValueError, match=r"v1\.2\.3"):
        read("v1.2-0-gabc")


def test_hatchling_asks_this_script() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    assert content["project"]["dynamic"] == ["version"]
    source = content["tool"]["hatch"]["version"]
    assert (ROOT / source["path"]).is_file()
    assert source["expression"] == "find_version()"
    assert find_version(ROOT)[0].isdigit()
