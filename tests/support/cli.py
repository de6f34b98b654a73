"""The command line, called in-process."""

from __future__ import annotations

import sys

import pytest

from medseg import cli


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Call ``medseg`` with arguments; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["medseg", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return int(done.value.code or 0)
