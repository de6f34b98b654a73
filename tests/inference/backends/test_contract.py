"""The backends that medseg ships keep the contract that others are held to."""

from __future__ import annotations

import pytest
import torch

from medseg.inference.backends.loading import BACKENDS, check_backend
from medseg.inference.backends.openvino import is_installed
from medseg.inference.backends.pytorch import TorchBackend
from medseg.testing.backends import BackendContract


class TestTorch(BackendContract):
    backend = BACKENDS.get("torch")


class TestTorchInBfloat16(BackendContract):
    backend = BACKENDS.get("torch")
    precision = torch.bfloat16
    tolerance = (
        0.3  # scores are a few units large, and bfloat16 has three digits
    )


@pytest.mark.skipif(not is_installed(), reason="needs the extra [openvino]")
class TestOpenVino(BackendContract):
    backend = BACKENDS.get("openvino")


@pytest.mark.gpu
class TestTorchOnGpu(BackendContract):
    backend = BACKENDS.get("torch")
    device = torch.device("cuda")
    tolerance = 0.01


@pytest.mark.parametrize("part", [TorchBackend, object(), "torch"])
def test_what_is_no_backend_is_refused(part: object) -> None:
    with pytest.raises(TypeError, match="a method 'load'"):
        check_backend(part)
