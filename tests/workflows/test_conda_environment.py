"""The conda environment asks for what the package asks for."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

NAMES = {
    "ignite": "pytorch-ignite",
    "matplotlib-base": "matplotlib",
    "python-isal": "isal",
    "pytorch": "torch",
}
"""conda-forge's name → PyPI's, where they differ."""


def read_ranges(listed: list[Any]) -> dict[str, str]:
    """Return package → range."""
    asked = [Requirement(text) for text in listed]
    return {
        canonicalize_name(NAMES.get(one.name, one.name)): str(one.specifier)
        for one in asked
    }


def test_each_dependency_is_there_in_the_same_range_and_nothing_else() -> None:
    *from_conda, from_pip = CONDA["dependencies"]
    *from_pip, itself = from_pip["pip"]
    found = read_ranges(from_conda) | read_ranges(from_pip)
    assert itself == "."
    del found["pip"]
    expected = read_ranges(PROJECT["project"]["dependencies"])
    allowed = Requirement(f"python{PROJECT['project']['requires-python']}")
    assert found == expected | {"python": str(allowed.specifier)}


def test_only_conda_forge_is_asked() -> None:
    # Anaconda's own channel is not free for hospitals and companies.
    assert CONDA["channels"] == ["conda-forge", "nodefaults"]
