"""Too little memory is known by what Python, NumPy and PyTorch raise of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg._support.memory import is_out_of_memory

MOST = 1 << 60


def test_what_libraries_raise_is_known() -> None:
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(MOST, np.uint8)
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(MOST, dtype=torch.uint8)
    assert is_out_of_memory(of_numpy.value)
    assert is_out_of_memory(of_torch.value)


def test_nothing_else_is() -> None:
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))
