"""How many threads arithmetic may take."""

from __future__ import annotations

import pytest

from medseg import MedsegError
from medseg._support.threads import limit_threads


@pytest.mark.parametrize(
    ("count", "why"),
    [(0, "at least 1"), (-1, "at least 1"), (10**12, "at most")],
)
def test_threads_that_cannot_be_are_refused(count: int, why: str) -> None:
    with (
        pytest.raises(MedsegError, match=why),
        limit_threads(count),
    ):
        pass
