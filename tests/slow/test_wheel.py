"""medseg from its wheel, in an environment and a folder of its own."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with medseg's wheel and this one's libraries."""
    home = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*build, "--wheel-dir", home, ROOT], check=True)
    subprocess.run([sys.executable, "-m", "venv", home / "env"], check=True)
    programs = home / "env" / "bin"
    (wheel,) = home.glob("medseg-*.whl")
    install = [programs / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "--no-deps", wheel], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = home / "env" / "lib" / version / "site-packages"
    # Behind this environment's own packages, so that its medseg is the wheel's.
    (packages / "zz_outer.pth").write_text("\n".join(site.getsitepackages()))
    return programs


def run(*command: object, cwd: Path) -> str:
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_package_is_the_wheels_and_whole(
    programs: Path, tmp_path: Path
) -> None:
    code = "import medseg; print(medseg.__file__, medseg.__version__)"
    file, version = run(programs / "python", "-c", code, cwd=tmp_path).split()
    assert Path(file).is_relative_to(programs.parent)
    for call in ([programs / "medseg"], [programs / "python", "-m", "medseg"]):
        assert run(*call, "--version", cwd=tmp_path) == f"medseg {version}\n"
    listed = json.loads(
        run(programs / "medseg", "bundles", "--json", cwd=tmp_path)
    )
    assert Path(listed["phantom_ct"]["path"]).is_relative_to(programs.parent)


def test_the_demo_runs_from_any_folder(programs: Path, tmp_path: Path) -> None:
    short = ["--set", "training.steps=5", "--set", "training.validate_every=5"]
    run(programs / "medseg", "demo", "--out", "demo", *short, cwd=tmp_path)
    assert (tmp_path / "demo" / "segmented.png").is_file()
    assert (tmp_path / "demo" / "results" / "report.html").is_file()


def test_a_folder_called_medseg_beside_a_script_hides_nothing(
    programs: Path, tmp_path: Path
) -> None:
    (tmp_path / "medseg" / "docs").mkdir(parents=True)
    script = tmp_path / "script.py"
    script.write_text("from medseg import load_bundle\nprint(load_bundle)\n")
    assert "load_bundle" in run(programs / "python", script, cwd=tmp_path)
