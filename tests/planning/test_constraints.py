"""Time budgets."""

from __future__ import annotations

import pytest

from medseg.errors import MedsegError
from medseg.planning import (
    parse_minutes,
)


def test_times() -> None:
    assert [
        parse_minutes(text) for text in ("20m", "2h", "90s", "5", " 1.5H ")
    ] == [
        20,
        120,
        1.5,
        5,
        90,
    ]
    for text in (
        "",
        "soon",
        "-3m",
        "0m",
        "2 weeks",
        "1e400h",
        "0.01s",
        "9999d",
    ):
        with pytest.raises(MedsegError, match="20m"):
            parse_minutes(text)
