"""A clock for tests of what takes time."""

from __future__ import annotations


class Clock:
    """A clock that is set by hand.

    Attributes:
        now: Its seconds.
    """

    now = 0.0

    def __call__(self) -> float:
        return self.now
