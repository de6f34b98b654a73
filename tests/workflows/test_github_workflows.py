"""GitHub's workflows: what they name exists, and they may do no more than they need."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

SYSTEMS = {"ubuntu", "macos", "windows"}
BUILT = {"dist/*", "dist/*.whl"}
"""Paths that a job makes itself."""


def read(file: Path) -> dict[Any, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def list_jobs(file: Path) -> dict[str, dict[str, Any]]:
    return read(file)["jobs"]


def list_commands(file: Path) -> list[str]:
    """Return each line that some step runs."""
    texts = [
        step["run"]
        for job in list_jobs(file).values()
        for step in job["steps"]
        if "run" in step
    ]
    return [line for text in texts for line in text.splitlines()]


def list_pythons() -> list[str]:
    """Return the versions of Python that the package says it runs on."""
    start = "Programming Language :: Python :: "
    return [
        line.removeprefix(start)
        for line in PROJECT["project"]["classifiers"]
        if line.startswith(start)
    ]


def test_tests_run_on_each_system_and_python() -> None:
    matrix = list_jobs(ROOT / ".github" / "workflows" / "test.yml")["tests"][
        "strategy"
    ]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == SYSTEMS
    assert matrix["python"] == list_pythons()
    lowest, highest = matrix["python"][0], matrix["python"][-1]
    after = int(highest.partition(".")[2]) + 1
    allowed = PROJECT["project"]["requires-python"]
    assert allowed == f">={lowest},<3.{after}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_workflow_may_only_read_and_each_job_ends(file: Path) -> None:
    assert read(file)["permissions"] == {"contents": "read"}
    for name, job in list_jobs(file).items():
        assert job["timeout-minutes"] <= 180, name
        more = job.get("permissions", {})
        assert set(more) <= {"id-token"}
        assert not more or (file.stem, name) == ("release", "publish")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_actions_are_pinned_by_a_whole_version(file: Path) -> None:
    used = [
        step["uses"]
        for job in list_jobs(file).values()
        for step in job["steps"]
        if "uses" in step
    ]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_a_command_names_exists(file: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", makefile, re.MULTILINE)
    extras = PROJECT["project"]["optional-dependencies"]
    for line in list_commands(file):
        words = line.split()
        if words and words[0] == "make":
            assert set(words[1:]) <= set(targets), line
        for asked in re.findall(r"\.\[([\w,]+)\]", line):
            assert set(asked.split(",")) <= set(extras), line
        for path in re.findall(r"(?<=\s)[\w-]+(?:/[\w.*-]+)+", f" {line}"):
            assert path in BUILT or (ROOT / path).exists(), line


def test_a_release_is_published_without_a_password() -> None:
    file = ROOT / ".github" / "workflows" / "release.yml"
    publish = list_jobs(file)["publish"]
    assert publish["environment"] == "pypi"
    assert publish["permissions"] == {"id-token": "write"}
    (last,) = [step for step in publish["steps"] if "pypi" in step["uses"]]
    assert "with" not in last
    assert "secrets." not in file.read_text(encoding="utf-8")
    tags = read(file)[True]["push"]["tags"]  # YAML 1.1 reads ``on`` as true
    assert all(tag.startswith("v[0-9]+") for tag in tags)
