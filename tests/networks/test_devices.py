"""Which device and which arithmetic a call gets."""

from __future__ import annotations

import pytest
import torch

from medseg import MedsegError
from medseg.networks.devices import CPU_BF16, choose_device, choose_precision

CPU = torch.device("cpu")


def test_a_device_that_is_not_there_is_an_error_that_says_what_is_allowed() -> (
    None
):
    with pytest.raises(MedsegError, match="choose auto, cpu, or cuda:N"):
        choose_device("abacus")


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(MedsegError, match="needs a GPU"):
        choose_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("forced", "precision"), [("1", torch.bfloat16), ("0", torch.float32)]
)
def test_whether_the_cpu_counts_as_one_with_bf16_can_be_forced(
    forced: str, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CPU_BF16, forced)
    assert choose_precision("auto", CPU) == precision
    assert choose_precision("bf16", CPU) == torch.bfloat16
    assert choose_precision("fp32", CPU) == torch.float32
