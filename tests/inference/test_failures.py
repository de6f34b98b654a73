"""A full disk ends a batch, too little memory a scan, and a bug is never blamed on the scan."""

from __future__ import annotations

import errno
import os

import pytest

from medseg._support.memory import is_out_of_memory
from medseg.errors import OutputError, ScanError
from medseg.inference.failures import (
    concerns_output_folder,
    describe_error,
    is_bug,
)


def output_error(number: int) -> OutputError:
    error = OutputError("the file cannot be written")
    error.__cause__ = OSError(number, os.strerror(number))
    return error


@pytest.mark.parametrize(
    "number",
    [
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EIO,
        errno.ENOENT,
        errno.ESTALE,
    ],
)
def test_a_disk_that_takes_nothing_more_ends_the_batch(number: int) -> None:
    assert concerns_output_folder(output_error(number))


def test_what_a_format_cannot_hold_is_about_one_scan() -> None:
    assert not concerns_output_folder(output_error(errno.EISDIR))
    assert not concerns_output_folder(
        OutputError("the affine is too large for the header")
    )
    unreadable = ScanError("the file cannot be read")
    unreadable.__cause__ = OSError(errno.EIO, "Input/output error")
    assert not concerns_output_folder(unreadable)


def test_a_lack_of_memory_is_not_a_bug() -> None:
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 GB"),
    ):
        assert is_out_of_memory(error)
        assert not is_bug(error)
        assert "not enough memory" in describe_error(error)
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_errors_of_others_are_bugs_and_only_their_type_is_named() -> None:
    error = RuntimeError("Qwertz^Zaphod has no pixels")
    assert is_bug(error)
    assert "RuntimeError" in describe_error(error)
    assert "Qwertz" not in describe_error(error)
    assert not is_bug(ScanError("the file is empty"))
    assert describe_error(ScanError("the file is empty")) == "the file is empty"
