"""Checkpoints that other software wrote, read without running anything in them.

Such a file is a pickle, a small program, inside a zip archive. Before torch sees it, the archive is
checked, and the program is read instruction by instruction: only those by which ``torch.save``
writes tensors and plain values are allowed, and only a few names. Torch then opens it with
``weights_only``, its tensors mapped from the file. NumPy's few names lead to stand-ins that keep
nothing, so no NumPy object is built.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from medseg._support.files import SPECIAL, is_special
from medseg.bundle.archives import check_archive, read_record
from medseg.bundle.pickled_programs import (
    NUMPY_NAMES,
    ProgramError,
    check_program,
)
from medseg.bundle.weights import TORCH_ERRORS
from medseg.errors import CheckpointError

_PROGRAM = "data.pkl"
_MOST_PROGRAM_BYTES = 16 << 20


class _Inert:
    """Stands where a NumPy object would be, and holds nothing of it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def read_foreign_checkpoint(file: Path) -> dict[Any, Any]:
    """Read a checkpoint of other software: tensors, mapped from the file, and plain values.

    Args:
        file: By ``torch.save``, of torch 1.6 or later.

    Returns:
        Its dict. Where NumPy objects were there is an object without content.

    Raises:
        CheckpointError: If it is absent, damaged, no such file, or holds anything that could run.
    """
    if is_special(file):
        raise CheckpointError(SPECIAL, source=file)
    if not file.is_file():
        raise CheckpointError("no such file", source=file)
    check_archive(file)
    _check_program(read_record(file, _PROGRAM, _MOST_PROGRAM_BYTES), file)
    stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        _Inert
    ]
    stand_ins.extend((_Inert, name) for name in NUMPY_NAMES)
    try:
        with torch.serialization.safe_globals(stand_ins):
            content = torch.load(
                str(file), map_location="cpu", weights_only=True, mmap=True
            )
    except (
        pickle.UnpicklingError,
        RecursionError,
        *TORCH_ERRORS,
    ) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise CheckpointError(
            "its content makes no sense, so it is damaged or forged",
            source=file,
            detail=lines[0],
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            "the file holds no dict, so it is no checkpoint", source=file
        )
    # A forged OrderedDict may have attributes that hide its methods.
    return dict(dict.items(content))


def _check_program(program: bytes, file: Path) -> None:
    try:
        check_program(program)
    except ProgramError as error:
        raise CheckpointError(
            "the file holds more than weights and plain values, which could run code, and was not "
            "opened",
            source=file,
            detail=str(error)[:200],
        ) from error
    except (ValueError, LookupError, EOFError, OverflowError) as error:
        raise CheckpointError(
            "its content makes no sense, so it is damaged or forged",
            source=file,
            detail=str(error),
        ) from error
