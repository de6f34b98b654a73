"""The reference of the command line on disk says what the commands say."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_reference_on_disk_is_current() -> None:
    script = runpy.run_path(str(DOCS / "generate" / "cli_reference.py"))
    on_disk = (DOCS / "reference" / "cli.md").read_text("utf-8")
    assert on_disk == script["cli_reference"](), "run: make reference"
