"""An export is used only if every file is the one exported, from the weights there are now."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg.bundle.bundle import Bundle, load_bundle
from medseg.bundle.hashes import hash_file, hash_network
from medseg.bundle.spec import AgreementSpec
from medseg.inference.backends.exported import (
    AGREEMENT,
    OPENVINO,
    StaleExportError,
    find_exported,
    write_agreement,
)


@pytest.fixture
def bundle(untrained_bundle: Callable[..., Path]) -> Bundle:
    """A bundle beside whose weights lie files in the place of exported ones."""
    bundle = load_bundle(untrained_bundle())
    folder = bundle.folder / OPENVINO
    folder.mkdir(parents=True)
    for name in ("model.xml", "model.bin"):
        (folder / name).write_text(name)
    files = {file.name: hash_file(file) for file in folder.iterdir()}
    agreement = AgreementSpec(
        network=hash_network(bundle), files=files, made_with={"torch": "2"}
    )
    write_agreement(agreement, folder)
    return bundle


def change_record(bundle: Bundle, **values: Any) -> None:
    record = bundle.folder / OPENVINO / AGREEMENT
    record.write_text(json.dumps(json.loads(record.read_text()) | values))


def test_a_current_export_is_found(bundle: Bundle) -> None:
    exported = find_exported(bundle)
    assert exported is not None
    assert exported.models == (bundle.folder / OPENVINO / "model.xml",)
    assert not exported.agreement.is_close, "nothing was compared yet"


def test_a_bundle_without_an_export_has_none(bundle: Bundle) -> None:
    (bundle.folder / OPENVINO / AGREEMENT).unlink()
    assert find_exported(bundle) is None


def test_other_weights_make_it_stale(bundle: Bundle) -> None:
    weights = torch.load(bundle.weights, weights_only=True)
    torch.save(
        {name: value + 1 for name, value in weights.items()}, bundle.weights
    )
    with pytest.raises(StaleExportError, match="other weights"):
        find_exported(bundle)


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
@pytest.mark.parametrize(
    "change", [Path.unlink, lambda file: file.write_text("changed")]
)
def test_a_file_that_is_missing_or_changed_makes_it_stale(
    bundle: Bundle, name: str, change: Callable[[Path], Any]
) -> None:
    change(bundle.folder / OPENVINO / name)
    with pytest.raises(
        StaleExportError, match="missing or was changed"
    ) as raised:
        find_exported(bundle)
    assert raised.value.source == str(bundle.folder / OPENVINO / name)


def test_every_member_must_be_exported(bundle: Bundle) -> None:
    files = {"other.xml": "model.xml", "model.bin": "model.bin"}
    folder = bundle.folder / OPENVINO
    (folder / "model.xml").rename(folder / "other.xml")
    change_record(
        bundle, files={name: hash_file(folder / name) for name in files}
    )
    with pytest.raises(StaleExportError, match="was not exported"):
        find_exported(bundle)


@pytest.mark.parametrize(
    "name", ["../../x.xml", "/x.xml", "a/b.xml", "..", "x.xml/../y.xml"]
)
def test_a_record_cannot_lead_out_of_the_bundle(
    bundle: Bundle, name: str
) -> None:
    change_record(bundle, files={name: "0" * 64, "model.bin": "0" * 64})
    with pytest.raises(StaleExportError, match="record"):
        find_exported(bundle)
