"""Backends are found by name, and ``auto`` never takes one that nobody asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.inference.backends.loading import BACKENDS
from medseg.inference.backends.pytorch import TorchBackend
from medseg.inference.segmenter import Segmenter
from medseg.volume import Volume


class Negative(TorchBackend):
    """A backend of another package."""

    def load(self, *arguments: Any) -> Sequence[Any]:
        self.arguments = arguments
        return super().load(*arguments)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Negative:
    backend = Negative()
    monkeypatch.setitem(BACKENDS._shipped, "negative", backend)
    return backend


def test_a_registered_backend_is_used_when_it_is_asked_for(
    added: Negative, untrained_bundle: Callable[..., Path]
) -> None:
    bundle = untrained_bundle()
    segmenter = Segmenter(bundle, "cpu", backend="negative", precision="bf16")
    assert segmenter.backend == "negative"
    _, files, device, precision = added.arguments
    assert list(files) == [bundle / "models" / "model.pt"]
    assert (device, precision) == (torch.device("cpu"), torch.bfloat16)
    scan = Volume(np.zeros((1, 18, 18, 18), np.float32), np.eye(4))
    assert segmenter.predict(scan).labels.shape == (18, 18, 18)


def test_auto_never_takes_a_backend_of_others(
    added: Negative, untrained_bundle: Callable[..., Path]
) -> None:
    assert Segmenter(untrained_bundle(), "cpu").backend == "torch"
    assert not hasattr(added, "arguments")


def test_an_unknown_backend_is_refused_with_those_there_are(
    untrained_bundle: Callable[..., Path],
) -> None:
    with pytest.raises(
        MedsegError, match="choose one of auto, torch, openvino"
    ):
        Segmenter(untrained_bundle(), "cpu", backend="abacus")
