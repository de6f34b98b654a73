"""Weights as safetensors, beside the files that stock MONAI reads, and read before them.

Such a file is a table of names, shapes and places, and then numbers; nothing in it can run. Which
files of a bundle belong together its ``trained.json`` says, by their hashes: where one was changed
since, neither is read, because nobody could tell which of the two is meant.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from medseg._support.files import SPECIAL, atomic_file, is_special
from medseg.bundle.bundle import Bundle
from medseg.bundle.hashes import hash_file
from medseg.bundle.weights import Weights, load_weights
from medseg.errors import CheckpointError

SUFFIX = ".safetensors"

_METADATA = "__metadata__"
_FORMAT = {"format": "pt"}
_ALIGNMENT = 8
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_safe_copies(files: Iterable[Path]) -> dict[str, str]:
    """Write each file of weights as safetensors, too; return file name → SHA-256 of both.

    Networks from elsewhere may have weights that this form does not know, such as complex numbers;
    theirs are read from the file they have.

    Args:
        files: Written by ``torch.save``.

    Raises:
        CheckpointError: If one cannot be read.
        OutputError: If a copy cannot be written.
    """
    hashes = {}
    for file in files:
        copy = file.with_suffix(SUFFIX)
        weights = load_weights(file)
        if not all(map(_is_known, weights.values())):
            copy.unlink(missing_ok=True)
            continue
        write_safetensors(copy, weights)
        for written in (file, copy):
            hashes[written.name] = hash_file(written)
    return hashes


def load_bundle_weights(bundle: Bundle, file: Path) -> Weights:
    """Read weights of a bundle: from safetensors where its ``trained.json`` states them.

    Args:
        bundle: A trained bundle.
        file: One of its weights by ``torch.save``, which older bundles have alone.

    Raises:
        CheckpointError: If they are absent, damaged, or one of both files was changed.
    """
    stated = bundle.trained.files
    safe = file.with_suffix(SUFFIX)
    if safe.name not in stated or not safe.is_file():
        return load_weights(file)
    for written in (safe, file):
        if written.is_file() and hash_file(written) != stated.get(written.name):
            raise CheckpointError(
                "was changed after it was written: trained.json states another hash. To use "
                f"{file.suffix} files that you changed yourself, remove the {SUFFIX} files beside "
                "them; else restore the bundle from a copy",
                source=written,
            )
    return read_safetensors(safe)


def write_safetensors(file: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write weights as safetensors, the same bytes for the same weights.

    A tensor with several names is written once, and the other names stand in the metadata, as
    ``safetensors.torch.save_model`` writes them. Its own order of metadata differs at every call.

    Raises:
        OutputError: If the file cannot be written.
    """
    names: dict[tuple[Any, ...], str] = {}
    metadata: dict[str, str] = dict(_FORMAT)
    header: dict[str, Any] = {_METADATA: metadata}
    tensors = []
    end = 0
    for name, value in sorted(weights.items()):
        first = names.setdefault(_identify(value), name)
        if first != name:
            metadata[name] = first
            continue
        start, end = end, end + value.numel() * value.element_size()
        header[name] = {
            "dtype": _TYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [start, end],
        }
        tensors.append(value)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with atomic_file(file) as temporary, temporary.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for value in tensors:
            flat = value.detach().cpu().contiguous().flatten()
            stream.write(flat.view(torch.uint8).numpy().tobytes())


def read_safetensors(file: Path) -> Weights:
    """Read weights that ``write_safetensors`` wrote.

    Raises:
        CheckpointError: If the file is damaged.
    """
    if is_special(file):
        raise CheckpointError(SPECIAL, source=file)
    weights: Weights = {}
    try:
        with safe_open(str(file), framework="pt") as content:
            for name in content.keys():  # noqa: SIM118  (it is no mapping)
                weights[name] = content.get_tensor(name)
            metadata = content.metadata() or {}
        for name, first in metadata.items():
            if name not in _FORMAT:
                weights[name] = weights[first]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            "the file is damaged; restore it from a copy",
            source=file,
            detail=str(error).splitlines()[0],
        ) from error
    return weights


def _is_known(value: torch.Tensor) -> bool:
    return value.dtype in _TYPES and value.layout == torch.strided


def _identify(value: torch.Tensor) -> tuple[Any, ...]:
    """Return what two names of one tensor have in common; an empty tensor is always its own."""
    place = value.data_ptr() if value.numel() else id(value)
    return place, value.dtype, value.shape, value.stride()
