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
from dataclasses import dataclass, field
from pathlib import Path


class MedsegError(Exception):
    """Base of every error a user can cause or mend.

    The names of files and folders, and what headers say, may identify a patient. So they stand
    apart from the message: results, reports, logs and MLflow hold ``message`` alone, and only
    the person at the terminal or in Python sees all of it, by ``str(error)``.

    Args:
        message: What came, what is allowed, what to do. Holds no path, no file name and no text
            of a header; numbers, and words of medseg or of the DICOM standard, may stand here.
        source: The file, folder or series that the message is about.
        detail: What the file says, or what the library that read it says.

    Example:
        >>> error = ScanError("the voxels end early; copy the file again", source="ct.nii.gz")
        >>> str(error)
        'ct.nii.gz: the voxels end early; copy the file again'
        >>> error.message
        'the voxels end early; copy the file again'
    """

    def __init__(
        self, message: str, *, source: str | Path | None = None, detail: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.source = None if source is None else str(source)
        self.detail = detail

    def __str__(self) -> str:
        before = f"{self.source}: " if self.source else ""
        behind = f" ({self.detail})" if self.detail else ""
        return f"{before}{self.message}{behind}"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, and where.

    Attributes:
        where: JSON path in a bundle (``training.patch.0``) or the name of a case.
        what: What came, what is allowed, what to do; no path and no text of a header.
        detail: Which file, and what it or the library that read it says. For the person at the
            terminal or in Python alone: nothing that is written holds it.
    """

    where: str
    what: str
    detail: str = field(default="", compare=False)

    @classmethod
    def from_error(cls, where: str, error: MedsegError) -> Fault:
        """Return what is wrong with a case as a fault; what may name a patient stands apart."""
        parts = (error.source, error.detail)
        return cls(where, error.message, "; ".join(part for part in parts if part))

    def __str__(self) -> str:
        behind = f" ({self.detail})" if self.detail else ""
        return f"{self.where}: {self.what}{behind}"


class _FaultsError(MedsegError):
    """An error that carries every fault found, not only the first; ``message`` names none."""

    def __init__(
        self,
        message: str,
        faults: Sequence[Fault] = (),
        *,
        source: str | Path | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message, source=source, detail=detail)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        lines = [super().__str__()]
        lines.extend(f"  {fault}" for fault in self.faults)
        return "\n".join(lines)


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
