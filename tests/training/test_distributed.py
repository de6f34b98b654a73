"""Two processes under torchrun train one network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.bundles import content, write_json

from medseg import train
from medseg.errors import MedsegError
from medseg.testing import write_dataset
from medseg.training.distributed import (
    SINGLE_PROCESS,
    ProcessGroup,
)

OVERRIDES = ["training.precision=fp32", "tracking.register_model=false"]


def test_the_items_of_a_batch_are_divided_in_order() -> None:
    shares = [ProcessGroup(rank, 3).local_items(6) for rank in range(3)]
    assert shares == [range(2), range(2, 4), range(4, 6)]
    assert SINGLE_PROCESS.local_items(5) == range(5)
    with pytest.raises(
        MedsegError, match="cannot be divided among 3 processes"
    ):
        ProcessGroup(0, 3).local_items(4)


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", 4, shape=(24, 20, 16), spacing=9.0)
    bundle = write_json(
        tmp_path,
        content(
            data={"folds": 4},
            training={
                "steps": 8,
                "validate_every": 4,
                "batch_size": 2,
                "ce_weight": 1,
            },
        ),
    )
    alone = train(
        bundle,
        data=data,
        out=tmp_path / "alone",
        device="cpu",
        # Dice pools a batch, so a shared batch has another Dice; cross-entropy has not.
        overrides=[*OVERRIDES, "training.dice_weight=0"],
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "-m", "medseg", "train", str(bundle)),
            *(
                "--data",
                str(data),
                "--out",
                str(tmp_path / "together"),
                "--device",
                "cpu",
            ),
            *(word for override in OVERRIDES for word in ("--set", override)),
            *("--set", "training.dice_weight=0"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained bundle") == 1
    together = tmp_path / "together"
    one, two = (
        torch.load(run / "checkpoints" / "last.pt", weights_only=True)[
            "learner"
        ]["network"]
        for run in (alone, together)
    )
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=2e-4, err_msg=name)
    assert (
        json.loads((together / "metrics.json").read_text())["training_cases"]
        == 3
    )
