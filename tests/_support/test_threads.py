"""How many threads arithmetic may take."""

from __future__ import annotations

import pytest

from medseg import MedsegError
from medseg._support.threads import limit_threads


@pytest.mark.parametrize("count", [0, -1])
def test_fewer_threads_than_one_are_refused(count: int) -> None:
    with (
        pytest.raises(MedsegError, match="at least 1 thread"),
        limit_threads(count),
    ):
        pass
