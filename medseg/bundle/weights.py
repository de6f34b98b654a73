"""Weights on disk: written whole, read without running pickled code, checked against their sums."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from medseg._support.files import atomic_file
from medseg.errors import CheckpointError, OutputError

Weights = dict[str, torch.Tensor]


# What torch raises on files that are torn, flipped or forged.
_DAMAGE = (
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
    found = load_tensors(path)
    if isinstance(found, dict) and isinstance(found.get("model"), dict):
        found = found["model"]
    if not (
        isinstance(found, dict)
        and found
        and all(isinstance(v, torch.Tensor) for v in found.values())
    ):
        raise CheckpointError(f"{path.name} holds no weights: a dict of tensors is needed")
    return {str(name): value for name, value in found.items()}


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    with atomic_file(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OutputError(
                f"cannot write {path}: {_first_line(error)}; is the disk full?"
            ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


_FOLDER = 0x10
"""Mark of a folder in a zip file's attributes."""


def _check_sums(path: Path) -> None:
    # Torch does not compare the checksums it writes, and a flipped bit is a wrong weight.
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as records:
        odd = (
            one.filename
            for one in records.infolist()
            # Torch reads uninitialised memory where a record is packed or marked as a folder.
            if one.compress_size != one.file_size or one.external_attr & _FOLDER
        )
        torn = next(odd, None) or records.testzip()
    if torn is not None:
        raise ValueError(f"the size or checksum of {torn} is wrong")


def load_tensors(path: Path) -> Any:
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is no file")
    try:
        _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} holds more than weights, which could run code, and was not opened"
        ) from error
    except _DAMAGE as error:
        raise CheckpointError(f"{path.name} is damaged: {_first_line(error)}") from error
