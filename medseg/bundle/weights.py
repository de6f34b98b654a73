"""Weights on disk: written whole, read without running pickled code, checked against their sums."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medseg._support.files import atomic_file
from medseg.bundle.archives import check_directory
from medseg.errors import CheckpointError, OutputError

Weights = dict[str, torch.Tensor]
"""A state dict: the name of a parameter or buffer → its values."""

_FOLDER = 0x10
"""Mark of a folder in a zip file's attributes."""

TORCH_ERRORS = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
)
"""What torch raises on programs and tensors that make no sense."""

# And what files do that are torn, flipped or forged.
_DAMAGE = (
    *TORCH_ERRORS,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def load_weights(path: Path) -> Weights:
    """Read a state dict without running pickled code.

    Args:
        path: A file by ``torch.save``: a state dict, or a dict that holds one under ``model``.

    Raises:
        CheckpointError: If it is absent, damaged, or holds anything but tensors.
    """
    content = load_tensors(path)
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not _is_state_dict(content):
        raise CheckpointError(
            "the file holds no weights: a dict of tensors is needed",
            source=path,
        )
    return {str(name): value for name, value in content.items()}


def _is_state_dict(content: Any) -> bool:
    if not isinstance(content, dict) or not content:
        return False
    return all(isinstance(value, torch.Tensor) for value in content.values())


def save_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all.

    Raises:
        OutputError: If the file cannot be written.
    """
    with atomic_file(path) as temporary:
        try:
            torch.save(dict(content), temporary)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OutputError(
                "the file cannot be written; is the disk full?",
                source=path,
                detail=_first_line(error),
            ) from error


def load_tensors(path: Path) -> Any:
    """Read tensors and plain values without running pickled code.

    Raises:
        CheckpointError: If the file is absent or damaged, or holds anything else.
    """
    if path.exists() and not path.is_file():
        raise CheckpointError("this is not a file of weights", source=path)
    try:
        _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError("no such file", source=path) from error
    except PermissionError as error:
        raise CheckpointError(
            "the file cannot be read: you lack the permission", source=path
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "the file holds more than weights, which could run code, and was not opened",
            source=path,
        ) from error
    except _DAMAGE as error:
        raise CheckpointError(
            "the file is damaged; restore it from a copy",
            source=path,
            detail=_first_line(error),
        ) from error


def _check_sums(path: Path) -> None:
    # Torch does not compare the checksums it writes, and a flipped bit is a wrong weight.
    if not zipfile.is_zipfile(path):
        return
    check_directory(path)
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            # Torch reads uninitialised memory where a record is packed or marked as a folder.
            is_packed = record.compress_size != record.file_size
            if is_packed or record.external_attr & _FOLDER:
                raise ValueError(f"the size of {record.filename} is wrong")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} is wrong")


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
