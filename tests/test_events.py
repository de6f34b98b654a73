"""Events reach every listener, in order, and an error of one is heard."""

from __future__ import annotations

import dataclasses

import pytest

from medseg import events
from medseg.events import Event, Notice, Progress, notify


def test_each_listener_hears_in_order() -> None:
    heard: list[tuple[str, Event]] = []
    notify(
        [
            lambda event: heard.append(("a", event)),
            lambda event: heard.append(("b", event)),
        ],
        Progress("checking", 1, 2),
    )
    assert [name for name, _ in heard] == ["a", "b"]
    assert heard[0][1] == Progress("checking", 1, 2)


def test_a_listeners_error_is_not_swallowed() -> None:
    def broken(_: Event) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        notify([broken], Notice("x"))


def test_events_are_records_that_never_change() -> None:
    kinds = [
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, Event)
    ]
    assert len(kinds) > 5
    for kind in kinds:
        assert dataclasses.is_dataclass(kind)
        assert kind.__doc__
    with pytest.raises(dataclasses.FrozenInstanceError):
        Notice("x").message = "y"  # type: ignore[misc]
