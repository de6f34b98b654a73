"""The version of medseg, found out when it is built: from the tag, or else from the change log.

    python workflows/release/version.py

* on the tag ``v1.2.0``: 1.2.0
* five commits after it: 1.2.1.dev5+g1a2b3c4
* in a clone that has no tags, or a shallow one: what the change log names first, 1.2.0 while it is
  not released and 1.2.1 after that, with ``.dev0+g1a2b3c4``
* in a source archive of PyPI: what it says itself
* in any other folder: as in a clone without tags, without the commit

Hatchling reads it (``[tool.hatch.version]`` in ``pyproject.toml``), so it needs nothing but Python.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_DESCRIBED = re.compile(
    r"v(?P<numbers>\d+\.\d+\.)(?P<last>\d+)(?P<candidate>rc\d+)?"
    r"-(?P<distance>\d+)-g(?P<commit>[0-9a-f]+)"
)
_HEADING = re.compile(
    r"^## (?P<numbers>\d+\.\d+\.)(?P<last>\d+) \((?P<when>[^)]+)\)",
    re.MULTILINE,
)


def find_version(root: Path = ROOT) -> str:
    """Return the version of what lies in a folder.

    Args:
        root: The folder of ``pyproject.toml``.

    Raises:
        ValueError: If neither a tag nor the change log names a version.
    """
    archived = root / "PKG-INFO"
    if archived.is_file():
        return read_archived(archived.read_text(encoding="utf-8"))
    if _ask_git(root, "rev-parse", "--show-prefix") != "":
        return read_change_log(root)  # no clone, or a folder within another
    described = _ask_git(
        root, "describe", "--tags", "--long", "--match", "v[0-9]*"
    )
    if described:
        return read_description(described)
    commit = _ask_git(root, "rev-parse", "--short", "HEAD")
    return read_change_log(root) + (f"+g{commit}" if commit else "")


def read_archived(text: str) -> str:
    """Return the version that the ``PKG-INFO`` of a source archive states."""
    found = re.search(r"^Version: (\S+)$", text, re.MULTILINE)
    if found is None:
        raise ValueError("PKG-INFO states no version")
    return found[1]


def read_description(text: str) -> str:
    """Turn what ``git describe --long`` says into a version.

    Examples:
        >>> read_description("v1.2.0-0-g1a2b3c4"), read_description("v1.2.0-5-g1a2b3c4")
        ('1.2.0', '1.2.1.dev5+g1a2b3c4')
        >>> read_description("v1.2.0rc1-5-g1a2b3c4")
        '1.2.0rc2.dev5+g1a2b3c4'
    """
    found = _DESCRIBED.fullmatch(text)
    if found is None:
        raise ValueError(f"a tag is v1.2.3 or v1.2.3rc1; git says {text}")
    last = found["last"]
    candidate = found["candidate"] or ""
    if int(found["distance"]) == 0:
        return found["numbers"] + last + candidate
    if candidate:
        candidate = f"rc{int(candidate[2:]) + 1}"
    else:
        last = str(int(last) + 1)
    behind = f".dev{found['distance']}+g{found['commit']}"
    return found["numbers"] + last + candidate + behind


def read_change_log(root: Path) -> str:
    """Return the version under way by the change log's first heading."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    found = _HEADING.search(text)
    if found is None:
        raise ValueError("the change log has no heading: ## 1.2.3 (date)")
    is_released = found["when"] != "unreleased"
    last = int(found["last"]) + is_released
    return f"{found['numbers']}{last}.dev0"


def _ask_git(root: Path, *arguments: str) -> str | None:
    """Return what git says of a folder; ``None`` where it says nothing."""
    command = ["git", "-C", str(root), *arguments]
    try:
        said = subprocess.run(
            command, capture_output=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.decode().strip()


if __name__ == "__main__":
    print(find_version())
