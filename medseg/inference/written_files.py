"""Writing the result files of one scan, each on its own: a format that fails loses no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from medseg.errors import MedsegError
from medseg.inference.failures import (
    concerns_output_folder,
    describe_error,
    is_bug,
)

Step = Callable[[], dict[str, str]]
"""Writes one file whole or not at all; returns its name and hash, or nothing if none is kept."""


@dataclass(slots=True)
class WrittenFiles:
    """What became of a scan's result files.

    Attributes:
        hashes: File → its SHA-256.
        missing: What has no file → why.
        bugs: Errors that are neither the scan's nor the machine's fault.
        may_come: Whether a missing file may be written when the same is tried again.
    """

    hashes: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    bugs: list[Exception] = field(default_factory=list)
    may_come: bool = False


def write_files(
    steps: Mapping[str, Step], missing: Mapping[str, str]
) -> WrittenFiles:
    """Write files, one by one.

    Args:
        steps: What to write, by the name of its format.
        missing: Formats that cannot be written, and why.

    Raises:
        Exception: The first failure, if nothing could be written; or the first that says that the
            folder takes no files any more.
    """
    written = WrittenFiles(missing=dict(missing))
    failures = []
    for name, write in steps.items():
        try:
            written.hashes |= write()
        except Exception as error:
            if concerns_output_folder(error):
                raise
            failures.append(error)
            written.missing[name] = describe_error(error)
    if failures and not written.hashes:
        raise failures[0]
    written.bugs = [error for error in failures if is_bug(error)]
    written.may_come = any(_may_pass(error) for error in failures)
    return written


def _may_pass(error: Exception) -> bool:
    """Tell whether the same may succeed next time: memory or a disk was full, a bug was mended."""
    is_ours = isinstance(error, MedsegError)
    return not is_ours or isinstance(error.__cause__, OSError)
