"""Events that go through a file are what they were."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from medseg.errors import OutputError
from medseg.events import (
    CrossValidationDone,
    Event,
    RunDone,
    RunStarted,
    StepDone,
    ValidationDone,
)
from medseg.tracking.event_files import EventReader, EventWriter

STARTED = RunStarted(
    Path("/runs/ärzte"), "id", "n", "e", {"a.b": "1"}, {"device": "cpu"}, 7, 9
)
EVENTS: list[Event] = [
    STARTED,
    StepDone(1, 0.1 + 0.2, {"dice": -1e-300}, 1e-4),
    ValidationDone(
        1, {"dice": {"liver": 0.1, "mean": 1.0}}, True, [Path("a.png")]
    ),
    CrossValidationDone([["fold", "mean"], ["0", "0.9"]]),
    RunDone(Path("run"), {"hd95": {"mean": math.inf}}, stopped_early=True),
]


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    reader = EventReader(tmp_path, "a-*")
    assert not list(reader.read())
    writer = EventWriter(tmp_path / "a-2")
    for event in EVENTS:
        writer(event)
        assert list(reader.read()) == [event]
    writer(StepDone(2, math.nan, {}, 0.0))
    (step,) = reader.read()
    assert isinstance(step, StepDone)
    assert math.isnan(step.loss)
    writer.close()


def test_half_a_line_is_read_when_it_is_whole_and_other_files_never(
    tmp_path: Path,
) -> None:
    EventWriter(tmp_path / "b-1")(STARTED)
    EventWriter(tmp_path / "a-1")(EVENTS[1])
    content = (tmp_path / "a-1").read_bytes()
    (tmp_path / "a-2").write_bytes(content[:-5])
    reader = EventReader(tmp_path, "a-*")
    assert list(reader.read()) == EVENTS[1:2]
    with (tmp_path / "a-2").open("ab") as stream:
        stream.write(content[-5:])
    assert list(reader.read()) == EVENTS[1:2]


def test_what_cannot_be_read_for_a_moment_is_read_later_and_in_order(
    tmp_path: Path,
) -> None:
    for name, event in zip("abc", EVENTS, strict=False):
        EventWriter(tmp_path / name)(event)
    torn = tmp_path / "b"
    content = torn.read_bytes()
    torn.unlink()
    torn.mkdir()
    reader = EventReader(tmp_path, "?")
    assert list(reader.read()) == EVENTS[:1]
    torn.rmdir()
    torn.write_bytes(content)
    assert list(reader.read()) == EVENTS[1:3]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written") as raised:
        EventWriter(tmp_path / "gone" / "a-1")
    assert raised.value.source == str(tmp_path / "gone")
    full = Path("/dev/full")
    if full.exists():
        with pytest.raises(OutputError, match="No space left"):
            EventWriter(full)(STARTED)
