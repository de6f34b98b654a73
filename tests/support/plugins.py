"""Packages that add to medseg, as a package manager leaves them: a module and its dist-info."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest


def install_package(
    folder: Path,
    name: str,
    entry_points: Mapping[str, Mapping[str, str]],
    code: str = "",
    version: str = "1.2",
) -> None:
    """Write a module and its metadata into a folder of ``sys.path``.

    Args:
        folder: Stands on ``sys.path``.
        name: Of the distribution and of its one module.
        entry_points: Group → name → object, as in ``pyproject.toml``.
        code: Of the module.
        version: Of the distribution.
    """
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    lines = []
    for group, points in entry_points.items():
        lines.append(f"[{group}]")
        lines.extend(f"{point} = {target}" for point, target in points.items())
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def forget_modules(folder: Path) -> None:
    """Forget the modules that were imported from a folder."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder on ``sys.path`` to install packages into."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    forget_modules(folder)
