"""A hundred kills at random moments lose nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from support.killed_batches import Wreck, write_scans, zygote

KILLS, SCANS = 100, 40
KILLED = -9


@pytest.mark.slow
def test_a_hundred_kills_at_random_moments_lose_nothing(
    tmp_path: Path, untrained_bundle: Callable[..., Path]
) -> None:
    order = {
        "bundle": untrained_bundle(),
        "scans": write_scans(tmp_path / "scans", SCANS),
    }
    chance = random.Random(0)
    with zygote() as forked:
        status, whole_time = forked.run(**order, out=tmp_path / "whole")
        assert status == 0
        kills, rounds, moments = 0, 0, set()
        while kills < KILLS:
            out, rounds = tmp_path / f"killed_{rounds}", rounds + 1
            wreck, status = Wreck(out, tmp_path / "whole"), KILLED
            while status == KILLED and kills < KILLS:
                # Short lives, so that many kills hit one batch before it is over.
                after = chance.uniform(0, 0.3 * whole_time)
                status, _ = forked.run(**order, out=out, after=after)
                kills += status == KILLED
                moments.add(wreck.check())
            assert forked.run(**order, out=out)[0] == 0
            assert wreck.check() == SCANS
            wreck.check_whole()
    assert len(moments) > 10  # they fell all along the batch
