"""Shards: the part of a batch that one process does, beside others in the same folder.

A scan belongs to a shard by the hash of its name, so that scans that are added move no other.
Each shard keeps a ledger and a lock of its own, in ``OUT/shards/2-of-4``; all results lie together
in ``OUT``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg._support.platform.locks import is_locked
from medseg.errors import BusyError, MedsegError, OutputError
from medseg.names import hash_text

SHARDS = "shards"
"""The folder, among the results, of the shards' own ledgers."""

AUTO = "auto"
"""What takes the shard from the variables that a scheduler sets."""

_MOST = 100_000
_HASH_DIGITS = 15
PATIENCE_SECONDS = 2.0
"""How long to wait for a lock: others who are refused, or only look, hold it for a moment."""
SHORT_PATIENCE_SECONDS = 0.2
"""The same for who works on all scans: only a report looks then."""

_TEXT = re.compile(r"(\d{1,6})/(\d{1,6})")
_NUMBER = re.compile(r"[0-9]{1,18}")
_FOLDER = re.compile(r"(\d{1,6})-of-(\d{1,6})")

# Scheduler → its variables: this task's number, the first number, how many there are.
_SLURM = "SLURM_ARRAY_TASK_"
_COUNTED_FROM_ZERO = {
    "JOB_COMPLETION_INDEX": "JOB_COMPLETIONS",  # Kubernetes, Indexed Job
    "AWS_BATCH_JOB_ARRAY_INDEX": "AWS_BATCH_JOB_ARRAY_SIZE",
}


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One of several parts of a batch.

    Attributes:
        count: How many parts there are.
        number: Which one this is, from 1.

    Examples:
        >>> shard = Shard(count=4, number=2)
        >>> shard.folder, shard.holds("liver_001")
        ('shards/2-of-4', True)
    """

    count: int
    number: int

    @property
    def folder(self) -> str:
        """Where its ledger lies among the results."""
        return f"{SHARDS}/{self.number}-of-{self.count}"

    @classmethod
    def find(cls, name: str, count: int) -> Shard:
        """Return which of so many shards the scan of this name belongs to."""
        return cls(count, _find_number(name, count))

    def holds(self, name: str) -> bool:
        """Tell whether the scan of this name belongs to it."""
        return _find_number(name, self.count) == self.number

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def _find_number(name: str, count: int) -> int:
    digest = hash_text(name)
    return int(digest[:_HASH_DIGITS], 16) % count + 1


def parse_shard(text: str, variables: Mapping[str, str] = os.environ) -> Shard:
    """Return the shard that a text means.

    Args:
        text: ``I/N``, the part and how many there are, from ``1/N`` to ``N/N``; or ``auto``, which
            takes them from the variables of a Slurm array, of a Kubernetes Indexed Job (with
            ``JOB_COMPLETIONS`` set to its completions) or of an AWS Batch array.
        variables: The environment.

    Raises:
        MedsegError: If it means none.

    Examples:
        >>> parse_shard("2/4")
        Shard(count=4, number=2)
        >>> parse_shard("auto", {"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "8"})
        Shard(count=8, number=1)
    """
    if text.strip() == AUTO:
        return _find_shard(variables)
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise MedsegError(
            "a shard is written I/N: which part, from 1, and how many there are, as 2/4; or auto"
        )
    return _make_shard(int(match[1]), int(match[2]))


def _make_shard(number: int, count: int) -> Shard:
    if not 1 <= count <= _MOST:
        raise MedsegError(
            f"got {count} shards; a batch has 1 to {_MOST} of them"
        )
    if not 1 <= number <= count:
        raise MedsegError(
            f"got shard {number} of {count}; shards are numbered from 1 to {count}"
        )
    return Shard(count, number)


def _find_shard(variables: Mapping[str, str]) -> Shard:
    if f"{_SLURM}ID" in variables:
        return _find_slurm_shard(variables)
    for index, count in _COUNTED_FROM_ZERO.items():
        if index in variables:
            number = _read_number(variables, index) + 1
            return _make_shard(number, _read_number(variables, count))
    raise MedsegError(
        "no scheduler says which shard this is (SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX and "
        "AWS_BATCH_JOB_ARRAY_INDEX are not set); give it as I/N"
    )


def _find_slurm_shard(variables: Mapping[str, str]) -> Shard:
    first = _read_number(variables, f"{_SLURM}MIN")
    last = _read_number(variables, f"{_SLURM}MAX")
    count = _read_number(variables, f"{_SLURM}COUNT")
    place = _read_number(variables, f"{_SLURM}ID") - first
    step = 1
    if count > 1:
        step = max(1, (last - first) // (count - 1))
    # Of an array such as 0,3,7 nobody can tell which place a number has.
    is_even = (count - 1) * step == last - first
    if not is_even or place % step:
        raise MedsegError(
            "the numbers of this Slurm array have gaps, so that it cannot be told which shard "
            "this is; use an array such as 1-8, or give the shard as I/N"
        )
    return _make_shard(place // step + 1, count)


def _read_number(variables: Mapping[str, str], name: str) -> int:
    text = variables.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise MedsegError(
            f"the variable {name} is needed to know which shard this is, and it holds no number; "
            "set it, or give the shard as I/N"
        )
    return int(text)


def list_shards(out: Path) -> list[Shard]:
    """Return the shards that have worked in a folder of results, in order."""
    shards = []
    for folder in (out / SHARDS).glob("*-of-*"):
        match = _FOLDER.fullmatch(folder.name)
        if match is None:
            continue
        count, number = int(match[2]), int(match[1])
        if 1 <= number <= count:
            shards.append(Shard(count, number))
    return sorted(shards)


def is_at_work(
    out: Path, shard: Shard | None, *, patience: float = 0.0
) -> bool:
    """Tell whether a shard, or who does all scans, is working in a folder of results right now.

    Args:
        out: The folder.
        shard: Who is meant; ``None`` for who does all scans.
        patience: Seconds that it must last: who is refused holds a lock for a moment.

    Raises:
        OutputError: If the lock cannot be read, or its disk knows none.
    """
    folder = out if shard is None else out / shard.folder
    try:
        return is_locked(folder, patience=patience)
    except OSError as error:
        raise OutputError(
            "it cannot be seen whether another process works in this folder; its lock must be "
            "readable, and on a disk that knows locks",
            source=folder,
            detail=error.strerror,
        ) from error


def refuse_others(out: Path, shard: Shard | None) -> None:
    """Make sure that nobody works in a folder of results who could do the same scans.

    To be called with the own lock held: of two that start at once, at most one goes on.

    Args:
        out: The folder.
        shard: The own shard; ``None`` for who works on all scans.

    Raises:
        BusyError: If shards of another number, or somebody without shards, are at work.
    """
    others = list_shards(out)
    if shard is not None:
        others = [other for other in others if other.count != shard.count]
        if is_at_work(out, None, patience=PATIENCE_SECONDS):
            raise BusyError(
                "another process is segmenting all scans into this folder; wait for it, or stop "
                "it",
                source=out,
            )
    for other in others:
        if is_at_work(out, other, patience=PATIENCE_SECONDS):
            raise BusyError(
                f"shard {other} is at work in this folder; wait for it, stop it, or give another "
                "folder",
                source=out,
            )


def list_ledger_folders(out: Path) -> Iterator[Path]:
    """Give the folders of all ledgers of a folder of results: its own, then those of shards."""
    yield out
    for shard in list_shards(out):
        yield out / shard.folder
