"""Paths in suggested commands can be copied into a shell as they are."""

from __future__ import annotations

import shlex

import pytest

from medseg._support.platform import shells
from medseg._support.platform.shells import quote_argument


@pytest.mark.parametrize(
    "path",
    [
        "runs/liver",
        "my scans/knee",
        "it's",
        'a "b"',
        "$HOME",
        "a;b",
        "größe",
        "",
    ],
)
def test_a_shell_of_posix_reads_the_path(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shells, "IS_WINDOWS", False)
    assert shlex.split(quote_argument(path)) == [path]


@pytest.mark.parametrize(
    ("path", "typed"),
    [
        ("C:\\scans", "C:\\scans"),
        ("C:\\my scans", '"C:\\my scans"'),
        ("a&b", '"a&b"'),
        ("$x", '"$x"'),
    ],
)
def test_windows_takes_double_quotes(
    path: str, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shells, "IS_WINDOWS", True)
    assert quote_argument(path) == typed


def test_plain_paths_stand_as_they_are() -> None:
    assert quote_argument("runs/2026-01-01_fold0") == "runs/2026-01-01_fold0"
    assert quote_argument("my scans") == '"my scans"'
