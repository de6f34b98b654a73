"""nnU-Net's schedule in the benchmark: it fills its time, and no more."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "workflows" / "benchmarks" / "nnunet.py"


@pytest.mark.parametrize("minutes", [20, 60, 600])
@pytest.mark.parametrize("step", [0.4, 3.0, 19.3, 25.0])
def test_the_schedule_fills_the_time_it_is_given(
    minutes: int, step: float
) -> None:
    fitted = runpy.run_path(str(SCRIPT))["fitted"]
    seconds, validation, epoch_end = 60.0 * minutes, step / 3, 1.0
    epochs, iterations = fitted(seconds, step, validation, epoch_end)
    epoch = iterations * step + max(1, iterations // 5) * validation + epoch_end
    assert 0.9 * seconds <= epochs * epoch <= seconds
    assert iterations >= 4  # else validation takes far more than by default
