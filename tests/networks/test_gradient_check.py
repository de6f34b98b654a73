"""Convolutions whose bf16 gradients are noise are found, whatever processor runs this."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from medseg.networks import gradient_check
from medseg.networks.gradient_check import (
    find_unsound_layers,
    has_sound_gradients,
)

BROKEN_IN_PYTORCH = """
import torch
from torch import nn
from medseg.networks.gradient_check import has_sound_gradients
torch.manual_seed(0)
sound = has_sound_gradients(nn.Conv3d(16, 1, 4, padding=1), torch.randn(1, 16, 3, 3, 3))
wide = has_sound_gradients(nn.Conv3d(16, 1, 4, padding=1), torch.randn(1, 16, 7, 7, 7))
print(sound, wide)
"""


class _Noise(torch.autograd.Function):
    """Passes values on; its gradient differs from call to call, or is far off, in bf16 alone."""

    @staticmethod
    def forward(
        ctx: Any, value: torch.Tensor, answers: list[float]
    ) -> torch.Tensor:
        ctx.answers = answers
        ctx.coarse = torch.is_autocast_enabled("cpu")
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return (grad * ctx.answers.pop(0) if ctx.coarse else grad), None


class BrokenConvolution(nn.Conv3d):
    """A convolution whose weight gradient is multiplied, as the list says, try by try."""

    def __init__(self, answers: list[float]) -> None:
        super().__init__(2, 3, 3, padding=1)
        self.answers = answers

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        weight = _Noise.apply(self.weight, self.answers)
        return self._conv_forward(image, weight, self.bias)


def given(*shape: int) -> torch.Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("answers", "sound"),
    [
        ([1.0, 1.0], True),
        ([1.0, 1.001], False),  # two answers
        ([2.0, 2.0], False),  # twice the same wrong one
        ([float("nan"), float("nan")], False),
        ([1e15, 1e15], False),
    ],
)
def test_a_gradient_must_be_the_same_twice_and_near_float32s(
    answers: list[float], sound: bool
) -> None:
    layer = BrokenConvolution(list(answers))
    assert has_sound_gradients(layer, given(2, 6, 6, 6)) is sound


def test_memory_is_dirty_before_each_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    fill = gradient_check._dirty_memory

    def note_fill(value: float, size: int) -> None:
        done.append(f"filled with {value}")
        fill(value, size)

    class Noted(nn.Conv2d):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            done.append("tried")
            return super().forward(image)

    monkeypatch.setattr(gradient_check, "_dirty_memory", note_fill)
    has_sound_gradients(Noted(1, 1, 1), given(1, 4, 4))
    # Other values before each try, so that whoever reads them gives two answers; then float32.
    assert done == [
        "filled with nan", "tried", "filled with 1e+30", "tried", "tried",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(2, 3, 3, padding=1), (2, 9, 7)),
        (nn.Conv3d(2, 4, 3, stride=2, padding=1), (2, 8, 8, 8)),
        (nn.ConvTranspose3d(2, 4, 2, stride=2, output_padding=1), (2, 4, 4, 4)),
        (nn.Conv3d(4, 4, 3, groups=2, dilation=2, bias=False), (4, 9, 9, 9)),
        (parametrizations.spectral_norm(nn.Conv2d(2, 3, 3)), (2, 9, 7)),
    ],
)
def test_sound_convolutions_of_every_kind_pass(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    assert find_unsound_layers(nn.Sequential(layer), [given(*shape)]) == []


def test_every_convolution_is_tried_at_the_size_it_has_in_its_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def judge(layer: nn.Module, tensor: torch.Tensor) -> bool:
        tried.append((type(layer).__name__, tuple(tensor.shape)))
        return tensor.shape[-1] != 4

    monkeypatch.setattr(
        "medseg.networks.gradient_check.has_sound_gradients", judge
    )
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1),
        nn.BatchNorm2d(2),
        nn.Conv2d(2, 2, 3, padding=1),
        nn.Conv2d(2, 2, 3, padding=1),
        parametrizations.spectral_norm(nn.ConvTranspose2d(2, 1, 2, stride=2)),
    )
    unsound = find_unsound_layers(network, [given(1, 8, 8)])
    # The third is like the second at the same size, and is not tried again.
    assert tried == [
        ("Conv2d", (1, 1, 8, 8)),
        ("Conv2d", (1, 2, 4, 4)),
        ("ConvTranspose2d", (1, 2, 4, 4)),
    ]
    assert unsound == [
        "2 (Conv2d on 4×4)",
        "3 (Conv2d on 4×4)",
        "4 (ConvTranspose2d on 4×4)",
    ]


@pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(),
    reason="this CPU does not compute in bf16",
)
def test_pytorchs_own_fault_is_found_where_the_processor_has_it() -> None:
    # Without AMX, whose kernels do not have this fault.
    environment = {
        **os.environ,
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", BROKEN_IN_PYTORCH],
        env=environment,
        capture_output=True,
        text=True,
    )
    if torch.__version__.startswith("2.13"):
        assert done.stdout.split() == ["False", "True"], done.stderr
    else:
        assert done.stdout.split()[1] == "True", done.stderr
