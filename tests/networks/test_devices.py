"""Which arithmetic and which device a call gets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.bundles import content, made_spec

from medseg import MedsegError
from medseg.bundle.bundle import parse_spec
from medseg.networks import devices
from medseg.networks.devices import choose_device, choose_precision, training_precision

CPU = torch.device("cpu")


def unet(patch: int, precision: str = "auto") -> Any:
    return made_spec(
        network={"kind": "unet", "channels": [4, 8, 8], "strides": [1, 2, 2]},
        training={"patch": [patch, 16, 16], "precision": precision},
    )


@pytest.fixture
def bf16_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule is about networks; it must hold whatever processor runs this test."""
    monkeypatch.setattr(devices, "_computes_bf16", lambda device: True)


@pytest.mark.usefixtures("bf16_hardware")
def test_bf16_is_avoided_on_a_cpu_where_its_gradients_are_noise() -> None:
    assert training_precision(unet(patch=16), CPU) == torch.bfloat16
    assert training_precision(unet(patch=8), CPU) == torch.float32
    foreign = parse_spec(content() | {"network": {"kind": "SegResNet"}})
    assert training_precision(foreign, CPU) == torch.float32


def test_bf16_asked_for_where_its_gradients_are_noise_is_refused() -> None:
    with pytest.raises(MedsegError, match="choose auto or fp32"):
        training_precision(unet(patch=8, precision="bf16"), CPU)
    assert training_precision(unet(patch=16, precision="bf16"), CPU) == torch.bfloat16


def test_a_device_that_is_not_there_is_an_error_that_says_what_is_allowed() -> None:
    with pytest.raises(MedsegError, match="choose auto, cpu or cuda:N"):
        choose_device("abacus")


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(MedsegError, match="needs a GPU"):
        choose_precision("fp16", CPU)
