"""Does torch.compile make a step of training faster on this CPU? Forward and backward, in turns.

    python workflows/benchmarks/compiled_training.py [--edge 48] [--rounds 5]

The mid-size 3D U-Net (16-32-64-128), one patch, Dice and cross-entropy, in float32 and bf16. Needs
a C++ compiler, as PyTorch's Inductor does on a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "gpu"))

from made import make_spec

from medseg.networks.building import build_network
from medseg.networks.levels import SupervisedNetwork
from medseg.training.losses import build_loss

_MID = {"channels": [16, 32, 64, 128], "strides": [1, 2, 2, 2]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for precision in (torch.float32, torch.bfloat16):
        _compare(precision, given.edge, given.rounds)


def _compare(precision: torch.dtype, edge: int, rounds: int) -> None:
    spec = make_spec(network=_MID, training={"patch": [edge] * 3})
    torch.manual_seed(0)
    network = SupervisedNetwork(build_network(spec))
    loss = build_loss(spec)
    image = torch.randn(1, 1, edge, edge, edge)
    label = torch.randint(0, 3, (1, 1, edge, edge, edge))

    def make_step(forward: nn.Module | Callable[..., torch.Tensor]) -> None:
        network.zero_grad(set_to_none=True)
        coarse = contextlib.nullcontext()
        if precision != torch.float32:
            coarse = torch.autocast("cpu", precision)
        with coarse:
            levels = forward(image)
        loss([level.float() for level in levels], label).backward()

    compiled = torch.compile(network, dynamic=False)
    began = time.perf_counter()
    make_step(compiled)
    print(f"{precision}: compiled in {time.perf_counter() - began:.0f} s")
    make_step(network)
    plain, faster = [], []
    for _ in range(rounds):
        plain.append(_measure(make_step, network))
        faster.append(_measure(make_step, compiled))
    ratio = median(plain) / median(faster)
    print(
        f"{precision}: plain {median(plain):.2f} s, compiled {median(faster):.2f} s of CPU a step "
        f"(least {min(plain):.2f}, {min(faster):.2f}): {ratio:.2f} times as fast"
    )


def _measure(make_step: Callable[..., None], forward: nn.Module) -> float:
    """Return the CPU seconds of a step."""
    began = time.process_time()
    make_step(forward)
    return time.process_time() - began


if __name__ == "__main__":
    main()
