"""The documentation builds strictly, and its pages load nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip(
    "mkdocs", reason="the docs extra is not installed: make docs"
)
pytest.importorskip(
    "mkdocstrings", reason="the docs extra is not installed: make docs"
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
LOADED = re.compile(r'(?:src|<link[^>]*href)="(https?:)?//[^"]*"')


def test_the_site_builds_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--quiet",
        "--site-dir",
        str(site),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        assert LOADED.search(page.read_text("utf-8")) is None, page
    assert (site / "images" / "segmented.png").is_file()
