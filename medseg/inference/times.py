"""Times in ledgers and states: UTC in one form, so that their texts have their order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_SECOND = timedelta(seconds=1)


def get_time_after(former: str) -> str:
    """Return the time, or one after a former time where clocks differ or were set back.

    Args:
        former: Empty where there is none.
    """
    now = datetime.now(UTC).isoformat()
    return now if now > former else add_second(former)


def add_second(time: str) -> str:
    """Return the time a second later; the text as it is where it is no time.

    Examples:
        >>> add_second("2026-01-01T00:00:59+00:00")
        '2026-01-01T00:01:00+00:00'
    """
    try:
        later = datetime.fromisoformat(time) + _SECOND
    except (ValueError, OverflowError):
        return time
    return later.isoformat()
