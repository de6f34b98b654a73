"""The exported models inside a trained bundle, and whether they are still those of its weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medseg._support.files import write_atomically
from medseg.bundle.bundle import MODELS, Bundle
from medseg.bundle.hashes import hash_file, hash_network
from medseg.bundle.reading import read_agreement
from medseg.bundle.spec import AgreementSpec
from medseg.errors import BundleError, CheckpointError

OPENVINO = MODELS / "openvino"
"""Where a bundle keeps its networks for OpenVINO."""

AGREEMENT = "agreement.json"
"""The record beside exported models: of which weights they are, and how far they agree."""


class StaleExportError(CheckpointError):
    """Exported models are not those of the weights that the bundle has now."""


@dataclass(frozen=True, slots=True)
class ExportedNetworks:
    """Networks that were exported from the weights a bundle has now.

    Attributes:
        models: The file of each member's network, in the order of the members.
        agreement: How far their label maps agree with those of the weights.
    """

    models: tuple[Path, ...]
    agreement: AgreementSpec


def find_exported(bundle: Bundle) -> ExportedNetworks | None:
    """Return a bundle's networks for OpenVINO; ``None`` if none were exported.

    Every file is compared with its hash, and the hash of the weights with the weights: what was
    exported from other weights, or changed since, is never used.

    Raises:
        StaleExportError: If there is an export that cannot be used.
        CheckpointError: If the bundle's weights cannot be read.
    """
    folder = bundle.folder / OPENVINO
    record = folder / AGREEMENT
    if not record.exists():
        return None
    try:
        agreement = read_agreement(record)
    except BundleError as error:
        raise StaleExportError(
            "the record of the networks exported to OpenVINO cannot be read",
            source=record,
            detail=str(error),
        ) from error
    for name, digest in agreement.files.items():
        if _hash(folder / name) != digest:
            raise StaleExportError(
                "a file of the networks exported to OpenVINO is missing or was changed",
                source=folder / name,
            )
    if agreement.network != hash_network(bundle):
        raise StaleExportError(
            "the networks exported to OpenVINO are of other weights, or of another network",
            source=folder,
        )
    models = tuple(folder / f"{member.stem}.xml" for member in bundle.members)
    for file in _list_files(models):
        if file.name not in agreement.files:
            raise StaleExportError(
                "a network of the bundle was not exported to OpenVINO",
                source=file,
            )
    return ExportedNetworks(models, agreement)


def write_agreement(agreement: AgreementSpec, folder: Path) -> None:
    """Write how far exported models agree with the weights beside their files."""
    write_atomically(
        folder / AGREEMENT, agreement.model_dump_json(indent=2) + "\n"
    )


def _list_files(models: tuple[Path, ...]) -> Iterator[Path]:
    for model in models:
        yield model
        yield model.with_suffix(".bin")


def _hash(file: Path) -> str:
    """Return the hash of a file; empty, so that it is like no other, if it cannot be read."""
    try:
        return hash_file(file)
    except OSError:
        return ""
