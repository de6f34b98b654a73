"""Hashes change with all that a result follows from, and with nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medseg.bundle.bundle import load_bundle, parse_spec
from medseg.bundle.hashes import hash_bundle, hash_file, hash_network
from medseg.bundle.spec import BundleSpec, KeepLargestFinding, TrainedSpec
from medseg.bundle.spec_files import write_bundle, write_trained
from medseg.bundle.weights import save_tensors
from medseg.errors import CheckpointError


def change_spec(folder: Path, change: Callable[[dict], None]) -> None:
    bundle = load_bundle(folder)
    content = bundle.spec.model_dump(mode="json", by_alias=True)
    change(content)
    write_bundle(parse_spec(content), folder / "bundle.json")


def hashes(folder: Path) -> tuple[str, str]:
    bundle = load_bundle(folder)
    return hash_bundle(bundle), hash_network(bundle)


@pytest.fixture
def folder(untrained_bundle: Callable[..., Path]) -> Path:
    return untrained_bundle()


def test_a_copy_elsewhere_has_the_same_hashes(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert hashes(tmp_path / "copy") == hashes(folder)


def test_weights_are_in_both(folder: Path) -> None:
    before = hashes(folder)
    save_tensors(folder / "models" / "model.pt", {"weight": torch.zeros(2)})
    after = hashes(folder)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_what_a_training_found_is_in_the_bundles(folder: Path) -> None:
    before = hashes(folder)
    write_trained(TrainedSpec(keep_largest=KeepLargestFinding()), folder)
    after = hashes(folder)
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_a_refiner_is_in_both(folder: Path) -> None:
    before = hashes(folder)
    save_tensors(folder / "models" / "refiner.pt", {"weight": torch.zeros(2)})
    after = hashes(folder)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_description_changes_no_network(folder: Path) -> None:
    before = hashes(folder)
    change_spec(
        folder, lambda content: content.update(description="something else")
    )
    after = hashes(folder)
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_a_patch_changes_a_network(folder: Path) -> None:
    before = hashes(folder)
    change_spec(
        folder, lambda content: content["training"].update(patch=[16, 16, 24])
    )
    assert hashes(folder)[1] != before[1]


def test_a_field_at_its_default_changes_no_hash() -> None:
    """Hashes of earlier releases must stay, or each batch would be done again."""
    assert "loss" not in BundleSpec.model_validate(
        {"name": "a", "channels": [{"name": "CT"}], "labels": [{"index": 1, "name": "b"}],
         "training": {"patch": [16, 16, 16]}}
    ).training.model_dump(mode="json")  # fmt: skip


def test_weights_that_cannot_be_read_are_an_error(folder: Path) -> None:
    (folder / "models" / "model.pt").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        hash_bundle(load_bundle(folder))


def test_a_file_is_hashed_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "one").write_bytes(content)
    (tmp_path / "other").write_bytes(content[:-1] + b"\0")
    assert hash_file(tmp_path / "one") != hash_file(tmp_path / "other")
