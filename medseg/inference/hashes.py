"""Hashes by which an earlier result is recognised as still valid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg._support.folders import list_files
from medseg.bundle.hashes import hash_file, hash_texts
from medseg.datasets.cases import Scan
from medseg.errors import ScanError
from medseg.io.voxel_files import find_voxel_file

_KEY_VERSION = "medseg result 1"


def hash_scan(scan: Scan) -> str:
    """Return a hash of the content of a scan's files, whatever they are called.

    Raises:
        ScanError: If a file cannot be read.
    """
    hashes = [_hash_part(part) for part in scan.parts]
    if scan.volume:
        hashes.append(scan.volume)
    return hash_texts(hashes)


def make_result_key(
    scan_hash: str, bundle_hash: str, options: Iterable[str]
) -> str:
    """Return a hash of everything a result follows from.

    Args:
        scan_hash: From ``hash_scan``.
        bundle_hash: From ``hash_bundle``.
        options: Whatever else changes what is written.
    """
    return hash_texts([_KEY_VERSION, scan_hash, bundle_hash, *sorted(options)])


def _hash_part(part: Sequence[Path]) -> str:
    hashes: list[str] = []
    for path in part:
        hashes.extend(_hash_or_refuse(file) for file in _list_files(path))
    return hash_texts(sorted(hashes))


def _hash_or_refuse(file: Path) -> str:
    try:
        return hash_file(file)
    except OSError as error:
        raise ScanError(
            "a file of the scan cannot be read; see that it exists and that you may read it",
            source=file,
            detail=error.strerror,
        ) from error


def _list_files(path: Path) -> Sequence[Path]:
    if path.is_dir():
        return list_files(path).files
    # A header may keep its voxels in another file.
    return tuple({path, find_voxel_file(path)})
