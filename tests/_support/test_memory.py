"""Too little memory is known by what Python, NumPy and PyTorch raise of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg._support.gpu_failures import is_gpu_failure
from medseg._support.memory import is_out_of_memory
from medseg.errors import MedsegError

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


@pytest.mark.parametrize(
    "said",
    [
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "CUDA error: out of memory",
        "GET was unable to find an engine to execute this computation",
        "Unable to find a valid cuDNN algorithm to run convolution",
    ],
)
def test_what_libraries_of_a_gpu_say_is_known(said: str) -> None:
    assert is_out_of_memory(RuntimeError(said))
    assert not is_gpu_failure(RuntimeError(said))


def test_what_an_error_was_raised_from_counts() -> None:
    wrapped = RuntimeError("applying transform NormalizeIntensity")
    wrapped.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize(
    ("said", "is_failure"),
    [
        ("CUDA error: an illegal memory access was encountered", True),
        ("CUDA error: device-side assert triggered", True),
        ("CUDA error: uncorrectable ECC error encountered", True),
        ("CUDA error: invalid configuration argument", False),
        ("shapes differ", False),
    ],
)
def test_errors_after_which_a_gpu_works_no_more_are_known(
    said: str, is_failure: bool
) -> None:
    error = RuntimeError(said)
    assert is_gpu_failure(error) is is_failure
    explained = MedsegError("the GPU failed")
    explained.__cause__ = error
    assert is_gpu_failure(explained) is is_failure
