"""The exported models inside a trained bundle, and whether they are still those of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medseg._support.files import write_atomically
from medseg.bundle.bundle import MODELS, Bundle, read_agreement
from medseg.bundle.hashes import hash_file, hash_network
from medseg.bundle.spec import AgreementSpec
from medseg.errors import BundleError

OPENVINO = MODELS / "openvino"
"""Where a bundle keeps its networks for OpenVINO."""
AGREEMENT = "agreement.json"


@dataclass(frozen=True, slots=True)
class Exported:
    """Networks that were exported from the weights a bundle has now.

    Attributes:
        models: The file of each member's network, in the order of the members.
        found: How far they agree with the weights.
    """

    models: tuple[Path, ...]
    found: AgreementSpec


def find_exported(bundle: Bundle) -> Exported | str:
    """Return a bundle's networks for OpenVINO, or why they cannot be used; '' if it has none.

    Every file is compared with its hash, and the hash of the weights with the weights: what was
    exported from other weights, or changed since, is never used.

    Raises:
        CheckpointError: If the bundle's weights cannot be read.
    """
    folder = bundle.folder / OPENVINO
    if not (folder / AGREEMENT).exists():
        return ""
    try:
        found = read_agreement(folder / AGREEMENT)
        changed = [name for name, digest in found.files.items() if _hash(folder / name) != digest]
    except BundleError as error:
        return str(error)
    if changed:
        return f"{OPENVINO / changed[0]} is not the file that was exported"
    if found.network != hash_network(bundle):
        return f"{OPENVINO} was exported from other weights or another network"
    models = tuple(folder / f"{member.stem}.xml" for member in bundle.members)
    absent = [
        file.name
        for model in models
        for file in (model, model.with_suffix(".bin"))
        if file.name not in found.files
    ]
    return f"{OPENVINO / absent[0]} is not there" if absent else Exported(models, found)


def write_agreement(found: AgreementSpec, folder: Path) -> None:
    """Write what an export found beside its files."""
    write_atomically(folder / AGREEMENT, found.model_dump_json(indent=2) + "\n")


def _hash(file: Path) -> str:
    try:
        return hash_file(file)
    except OSError:
        return ""
