"""Pieces of long work are noted, and taken up by the call that goes on."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from medseg.errors import OutputError
from medseg.training.journal import Journal


def test_pieces_are_those_of_the_same_task_and_key(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert journal.resume("scoring", "a").done == []
    journal.resume("scoring", "a").add([1, math.inf])
    journal.resume("scoring", "b").add(2)
    journal.resume("timing", "a").add(3)
    journal.resume("scoring", "a").add(4)
    assert journal.resume("scoring", "a").done == [[1, math.inf], 4]


def test_a_torn_line_is_left_out_and_harms_no_other(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.resume("scoring", "a").add(1)
    with journal.file.open("a") as stream:
        stream.write('{"task": "scoring", "key": "a", "val')
    journal.resume("scoring", "a").add(2)
    assert journal.resume("scoring", "a").done == [1, 2]


def test_a_journal_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be noted"):
        Journal(tmp_path / "absent" / "journal").resume("a", "b").add(1)
