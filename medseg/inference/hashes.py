"""Hashes that tell whether work that was done once would come out the same again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg._support.folders import list_files
from medseg.bundle.hashes import hash_file, hash_texts
from medseg.datasets.cases import Scan
from medseg.errors import ScanError
from medseg.io.itk import find_voxel_file

_KEY_VERSION = "medseg result 1"


def hash_scan(scan: Scan) -> str:
    """Return a hash of the content of a scan's files, whatever they are called.

    Raises:
        ScanError: If a file cannot be read.
    """
    volume = [scan.volume] if scan.volume else []
    return hash_texts([*(_hash_part(part) for part in scan.parts), *volume])


def result_key(scan_hash: str, bundle_hash: str, options: Iterable[str]) -> str:
    """Return a hash of everything a result follows from.

    Args:
        scan_hash: From ``hash_scan``.
        bundle_hash: From ``hash_bundle``.
        options: Whatever else changes what is written.
    """
    return hash_texts([_KEY_VERSION, scan_hash, bundle_hash, *sorted(options)])


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
    return hash_texts(sorted(hashes))


def _files_of(path: Path) -> Sequence[Path]:
    return list_files(path).files if path.is_dir() else tuple({path, find_voxel_file(path)})
