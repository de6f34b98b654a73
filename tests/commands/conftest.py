"""Fixtures of the tests of commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.trainings import CPU_KINDS, Zygote, start_zygote


@pytest.fixture(scope="session", params=CPU_KINDS)
def zygote(request: pytest.FixtureRequest) -> Iterator[Zygote]:
    """One process for all trainings that are killed, on each kind of CPU that this one can be."""
    with start_zygote(computes_bf16=request.param) as started:
        yield started
