"""The table of tests names tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "explanation" / "check-tests.md"


def test_every_test_that_the_table_names_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text("utf-8"))
    assert len(named) > 50
    absent = []
    for file, test in named:
        tree = ast.parse((TESTS / file).read_text("utf-8"))
        functions = {getattr(node, "name", "") for node in tree.body}
        if test not in functions:
            absent.append(f"{file}::{test}")
    assert absent == []
