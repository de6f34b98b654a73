"""Hashes of a bundle and of its files: what tells one trained network from another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from medseg.bundle.bundle import REFINER_FILE, Bundle, format_spec
from medseg.errors import CheckpointError

_CHUNK = 1 << 20


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits.

    Raises:
        OSError: If it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def hash_bundle(bundle: Bundle) -> str:
    """Return a hash of what a trained bundle says and has learned.

    Raises:
        CheckpointError: If its weights cannot be read.
    """
    trained = bundle.trained.model_dump_json()
    return hash_texts([format_spec(bundle.spec), trained, *_hash_members(bundle)])


def hash_network(bundle: Bundle) -> str:
    """Return a hash of what a bundle's networks compute: kind, sizes and all weights.

    Raises:
        CheckpointError: If its weights cannot be read.
    """
    spec = bundle.spec
    sizes = [len(spec.channels), spec.label_set.channels, *spec.training.patch]
    kinds = [part.model_dump_json() for part in (spec.network, spec.refinement) if part]
    return hash_texts([*kinds, str(sizes), *_hash_members(bundle)])


def _hash_members(bundle: Bundle) -> list[str]:
    refiner = bundle.folder / REFINER_FILE
    files = [*bundle.members, *([refiner] if refiner.is_file() else [])]
    try:
        return [hash_file(file) for file in files]
    except OSError as error:
        raise CheckpointError(
            f"{error.filename} cannot be read: {error.strerror}; train the bundle, or mend it"
        ) from error


def hash_texts(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
