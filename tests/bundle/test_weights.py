"""Weights on disk: read without running code, and refused where they are damaged."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from support.bundles import Trap

from medseg.bundle.weights import load_weights, save_tensors
from medseg.errors import CheckpointError


def test_weights_wrapped_by_monai_are_found(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "model.pt")
    assert load_weights(tmp_path / "model.pt") == {"a": torch.ones(1)}


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        torch.ones(3),
        {"a": 1},
        {"a": torch.ones(1), "b": "text"},
        {"model": {"a": None}},
        {"model": {}},
        "text",
    ],
)
def test_a_file_without_weights_is_refused(
    content: Any, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_weights(tmp_path / "model.pt")


def test_absent_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_weights(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="not a file of weights"):
        load_weights(tmp_path)


def test_pickled_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    for content in (
        {"a": torch.ones(1), "b": Trap(tmp_path / "canary")},
        torch.nn.Linear(1, 1),
    ):
        torch.save(content, tmp_path / "model.pt")
        with pytest.raises(
            CheckpointError, match="could run code, and was not opened"
        ):
            load_weights(tmp_path / "model.pt")
    assert not (tmp_path / "canary").exists()


def test_a_file_damaged_anywhere_is_refused_or_still_right(
    tmp_path: Path,
) -> None:
    file = tmp_path / "model.pt"
    weights = {"layer.weight": torch.arange(64.0), "layer.bias": torch.ones(3)}
    save_tensors(file, weights)
    whole = file.read_bytes()
    for cut in [*range(0, len(whole), 97), len(whole) - 1]:
        file.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match=r"model\.pt"):
            load_weights(file)
    for at in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        file.write_bytes(damaged)
        with contextlib.suppress(CheckpointError):
            # Some bytes mean nothing; a flip that is not noticed must have changed nothing.
            found = load_weights(file)
            assert found.keys() == weights.keys()
            assert all(
                torch.equal(found[name], weights[name]) for name in weights
            )


def test_weights_that_may_not_be_read_are_not_called_damaged(
    tmp_path: Path,
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    file = tmp_path / "model.pt"
    torch.save({"a": torch.ones(1)}, file)
    file.chmod(0)
    with pytest.raises(CheckpointError, match="you lack the permission"):
        load_weights(file)
