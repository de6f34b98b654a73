"""Training runs in processes that can be killed, and what is compared after them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
import torch

from medseg.networks.devices import CPU_BF16

_HAS_BF16 = torch.cpu._is_avx512_bf16_supported()

CPU_KINDS = [
    pytest.param(
        True,
        id="bf16",
        marks=pytest.mark.skipif(
            not _HAS_BF16, reason="this CPU does not compute in bf16"
        ),
    ),
    pytest.param(
        False,
        id="no bf16",
        marks=[pytest.mark.slow, pytest.mark.nightly] if _HAS_BF16 else [],
    ),
]
"""Whether the CPU counts as one with bf16: as it is by default, both ways each night."""


class Zygote:
    """Starts trainings, and kills them if wanted."""

    def __init__(self, *, computes_bf16: bool) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("train_zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                CPU_BF16: str(int(computes_bf16)),
            },
        )
        assert self._out.readline() == "ready\n"

    @property
    def _out(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def train(self, **arguments: object) -> int:
        """Train in a child; return its wait status."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        return int(self._out.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


@contextmanager
def start_zygote(*, computes_bf16: bool) -> Iterator[Zygote]:
    """Start the process that forks training runs, and end it."""
    started = Zygote(computes_bf16=computes_bf16)
    try:
        yield started
    finally:
        started.close()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "models" / "model.pt", weights_only=True)


def checkpoint(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)


def same(one: object, other: object) -> bool:
    """Compare nested tensors and values bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, list | tuple):
        return (
            isinstance(other, list | tuple)
            and len(one) == len(other)
            and all(same(a, b) for a, b in zip(one, other, strict=True))
        )
    return one == other or (one != one and other != other)
