"""Hashes that tell whether work that was done once would come out the same again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg.tools.bundle import REFINER_FILE, Bundle, spec_json
from medseg.tools.cases import Scan
from medseg.tools.folders import files_below
from medseg.tools.images.itk import voxel_file
from medseg.words.errors import CheckpointError, ScanError

_CHUNK = 1 << 20
_KEY_VERSION = "medseg result 1"


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
    return _hash_texts([spec_json(bundle.spec), trained, *_hash_members(bundle)])


def hash_network(bundle: Bundle) -> str:
    """Return a hash of what a bundle's networks compute: kind, sizes and all weights.

    Raises:
        CheckpointError: If its weights cannot be read.
    """
    spec = bundle.spec
    sizes = [len(spec.channels), spec.label_set.channels, *spec.training.patch]
    kinds = [part.model_dump_json() for part in (spec.network, spec.refinement) if part]
    return _hash_texts([*kinds, str(sizes), *_hash_members(bundle)])


def _hash_members(bundle: Bundle) -> list[str]:
    refiner = bundle.folder / REFINER_FILE
    files = [*bundle.members, *([refiner] if refiner.is_file() else [])]
    try:
        return [hash_file(file) for file in files]
    except OSError as error:
        raise CheckpointError(
            f"{error.filename} cannot be read: {error.strerror}; train the bundle, or mend it"
        ) from error


def hash_scan(scan: Scan) -> str:
    """Return a hash of the content of a scan's files, whatever they are called.

    Raises:
        ScanError: If a file cannot be read.
    """
    volume = [scan.volume] if scan.volume else []
    return _hash_texts([*(_hash_part(part) for part in scan.parts), *volume])


def result_key(scan_hash: str, bundle_hash: str, options: Iterable[str]) -> str:
    """Return a hash of everything a result follows from.

    Args:
        scan_hash: From ``hash_scan``.
        bundle_hash: From ``hash_bundle``.
        options: Whatever else changes what is written.
    """
    return _hash_texts([_KEY_VERSION, scan_hash, bundle_hash, *sorted(options)])


def _hash_part(part: Sequence[Path]) -> str:
    files = [file for path in part for file in _files_of(path)]
    hashes = []
    for file in files:
        try:
            hashes.append(hash_file(file))
        except OSError as error:
            raise ScanError(
                f"{file.name}: cannot be read ({error.strerror}); see that the file is there and "
                "may be read"
            ) from error
    return _hash_texts(sorted(hashes))


def _files_of(path: Path) -> Sequence[Path]:
    return files_below(path).files if path.is_dir() else tuple({path, voxel_file(path)})


def _hash_texts(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
