"""What a person is told when memory runs out: whose it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.inference.device_errors import explain_device_errors
from medseg.volume import Volume

VOLUME = Volume(np.zeros((1, 4, 5, 6), np.float32), np.eye(4), source="a.nii")
GPU = torch.device("cuda", 0)


def test_a_gpu_that_is_full_is_named() -> None:
    with (
        pytest.raises(MedsegError, match="of cuda:0; try --device cpu"),
        explain_device_errors(VOLUME, GPU),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_gpu_is_not_blamed_for_the_memory_of_its_host() -> None:
    with (
        pytest.raises(MedsegError, match=r"memory of this machine$") as raised,
        explain_device_errors(VOLUME, GPU),
    ):
        np.empty((200_000,) * 3)
    assert raised.value.source == "a.nii"
