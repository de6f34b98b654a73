"""The errors medseg raises on purpose.

Each says what came, what is allowed and what to do. ``MedsegError`` is what a caller
catches; anything else that escapes is a bug of ours and keeps its traceback::

    MedsegError
    ├── BundleError      the bundle, or an override of it, is wrong (every fault at once)
    ├── DatasetError     the training data as a whole cannot be used (every bad case at once)
    ├── ScanError        one scan cannot be read or is not what it claims to be
    │   └── GeometryError    its voxels have no single, certain place in the patient
    ├── CheckpointError  weights or a run folder cannot be used
    ├── TrainingError    a training could not go on (a loss that became NaN, no memory left)
    ├── OutputError      a result could not be written
    └── MissingExtraError  an optional part of medseg is not installed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class MedsegError(Exception):
    """Base of every error a user can cause or mend."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, and where.

    Attributes:
        where: JSON path in a bundle (``training.patch.0``) or the name of a case.
        what: What came, what is allowed, what to do.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class _FaultsError(MedsegError):
    """An error that carries every fault found, not only the first."""

    def __init__(self, headline: str, faults: Sequence[Fault] = ()) -> None:
        self.headline = headline
        self.faults = tuple(faults)
        super().__init__("\n".join([headline, *(f"  {fault}" for fault in self.faults)]))

    def __reduce__(self) -> tuple[type[_FaultsError], tuple[str, tuple[Fault, ...]]]:
        return type(self), (self.headline, self.faults)


class BundleError(_FaultsError):
    """A bundle, or an override of it, is wrong."""


class DatasetError(_FaultsError):
    """The training data as a whole cannot be used; ``faults`` names every bad case."""


class ScanError(MedsegError):
    """One scan cannot be read or is not what it claims to be."""


class GeometryError(ScanError):
    """A scan's voxels have no single, certain place in the patient."""


class CheckpointError(MedsegError):
    """Weights or a run folder cannot be used."""


class TrainingError(MedsegError):
    """A training could not go on."""


class OutputError(MedsegError):
    """A result could not be written."""


class MissingExtraError(MedsegError):
    """An optional part of medseg is not installed; the message has the install line."""
