"""A hundred kills at random moments lose nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from killed_batches import Wreck, write_scans, zygote

KILLS, SCANS = 100, 40


@pytest.mark.slow
def test_a_hundred_kills_at_random_moments_lose_nothing(
    tmp_path: Path, untrained_bundle: Callable[..., Path]
) -> None:
    order = {"bundle": untrained_bundle(), "scans": write_scans(tmp_path / "scans", SCANS)}
    chance = random.Random(0)
    with zygote() as forked:
        status, whole_time = forked.run(**order, out=tmp_path / "whole")
        assert status == 0
        wreck, kills, rounds = None, 0, 0
        while kills < KILLS:
            out = tmp_path / f"killed_{rounds}"
            wreck, rounds = Wreck(out, tmp_path / "whole"), rounds + 1
            status, done = -9, 0
            while status == -9 and kills < KILLS:
                # Short lives, so that many kills hit one batch before it is over.
                after = chance.uniform(0, 0.3 * whole_time)
                status, _ = forked.run(**order, out=out, after=after)
                kills += status == -9
                done = wreck.check()
            status, _ = forked.run(**order, out=out)
            assert (status, wreck.check(), done <= SCANS) == (0, SCANS, True)
            wreck.check_whole()
    assert rounds >= 1
