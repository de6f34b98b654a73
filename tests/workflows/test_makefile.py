"""What ``make`` does first is said and seen."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def list_commands(target: str, venv: Path) -> list[str]:
    # Below another make (`make test`), these would add lines and options.
    inherited = ("MAKELEVEL", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in inherited
    }
    done = subprocess.run(
        ["make", "--dry-run", target, f"VENV={venv}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_the_demo_says_what_it_installs_and_lets_pip_show_how_far_it_is(
    tmp_path: Path,
) -> None:
    commands = list_commands("demo", tmp_path / "venv")
    said = "\n".join(line for line in commands if line.startswith("echo"))
    for word in ("PyTorch", "GB", "minutes", "without a GPU"):
        assert word in said
    installs = [line for line in commands if "pip install" in line]
    assert len(installs) == 1
    assert "--quiet" not in installs[0]
    assert "dev" not in installs[0]
    check = next(line for line in commands if "pip check" in line)
    assert commands.index(installs[0]) < commands.index(check)
    assert "medseg demo" in commands[-1]


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_what_is_there_already_is_not_listed(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    first, *others = [
        line for line in list_commands("lint", venv) if "pip install" in line
    ]
    assert "--quiet" not in first
    assert others
    assert all("--quiet" in line for line in others)
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "medseg").touch()
    again = [
        line for line in list_commands("demo", venv) if "pip install" in line
    ]
    assert all("--quiet" in line for line in again)
