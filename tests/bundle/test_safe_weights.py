"""Weights as safetensors: the same bytes each time, read first, refused where they were changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medseg import CheckpointError
from medseg.bundle.bundle import load_bundle
from medseg.bundle.hashes import hash_bundle, hash_network
from medseg.bundle.safe_weights import (
    load_bundle_weights,
    read_safetensors,
    write_safe_copies,
    write_safetensors,
)
from medseg.bundle.spec import TrainedSpec
from medseg.bundle.spec_files import write_trained
from medseg.bundle.weights import load_weights, save_tensors


def test_weights_come_back_with_all_their_names(tmp_path: Path) -> None:
    shared = torch.randn(3, 4)
    weights = {
        "b": shared,
        "a": shared,
        "turned": shared.t(),
        "half": torch.randn(5).half(),
        "count": torch.tensor(7),
        "none": torch.empty(0, 3),
        "brain": torch.randn(2).bfloat16(),
    }
    file = tmp_path / "model.safetensors"
    write_safetensors(file, weights)
    back = read_safetensors(file)
    assert back.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(back[name], value)
        assert back[name].dtype == value.dtype
    assert load_file(file).keys() == weights.keys() - {"b"}


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    first = {"a": torch.ones(2), "b": torch.zeros(3)}
    other = {"b": torch.zeros(3), "a": torch.ones(2)}
    write_safetensors(tmp_path / "a", first)
    write_safetensors(tmp_path / "b", other)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_weights_of_a_kind_it_does_not_know_stay_as_they_are(
    tmp_path: Path,
) -> None:
    file = tmp_path / "model.pt"
    save_tensors(file, {"a": torch.ones(2)})
    assert len(write_safe_copies([file])) == 2
    save_tensors(file, {"a": torch.ones(2, dtype=torch.complex64)})
    assert write_safe_copies([file]) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.fixture
def folder(untrained_bundle: Callable[..., Path]) -> Path:
    """A bundle whose weights stand in both forms."""
    folder = untrained_bundle()
    hashes = write_safe_copies([folder / "models" / "model.pt"])
    write_trained(TrainedSpec(files=hashes), folder)
    return folder


def test_safetensors_are_read_first(folder: Path) -> None:
    bundle = load_bundle(folder)
    wanted = load_weights(bundle.weights)
    bundle.weights.write_bytes(b"")
    bundle.weights.unlink()
    weights = load_bundle_weights(bundle, bundle.weights)
    assert weights.keys() == wanted.keys()


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_where_one_of_both_was_changed_neither_is_read(
    folder: Path, name: str
) -> None:
    bundle = load_bundle(folder)
    weights = {"a": torch.ones(2)}
    if name == "model.pt":
        save_tensors(folder / "models" / name, weights)
    else:
        write_safetensors(folder / "models" / name, weights)
    with pytest.raises(CheckpointError, match="was changed after it was"):
        load_bundle_weights(bundle, bundle.weights)


def test_without_safetensors_weights_by_torch_save_are_read_as_before(
    folder: Path,
) -> None:
    bundle = load_bundle(folder)
    (folder / "models" / "model.safetensors").unlink()
    save_tensors(bundle.weights, {"a": torch.ones(2)})
    assert load_bundle_weights(bundle, bundle.weights).keys() == {"a"}


def test_a_file_that_no_hash_speaks_of_is_not_read(folder: Path) -> None:
    write_trained(TrainedSpec(), folder)
    file = folder / "models" / "model.safetensors"
    write_safetensors(file, {"forged": torch.ones(2)})
    bundle = load_bundle(folder)
    assert "forged" not in load_bundle_weights(bundle, bundle.weights)


def test_hashes_tell_what_is_read(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    bundle = load_bundle(copy)
    write_safetensors(
        copy / "models" / "model.safetensors", {"a": torch.ones(2)}
    )
    for compute in (hash_bundle, hash_network):
        assert compute(bundle) != compute(load_bundle(folder))


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 16, b"\x08" + bytes(7) + b'{"a":1}', b"x" * 4096],
)
def test_damaged_safetensors_are_refused(
    content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_safetensors(file)


def test_a_name_for_a_tensor_that_is_not_there_is_refused(
    tmp_path: Path,
) -> None:
    file = tmp_path / "model.safetensors"
    shared = torch.ones(2)
    write_safetensors(file, {"a": shared, "b": shared})
    file.write_bytes(file.read_bytes().replace(b'"b":"a"', b'"b":"c"'))
    with pytest.raises(CheckpointError, match="is damaged"):
        read_safetensors(file)
