"""The errors medseg raises on purpose.

Each says what came, what is allowed and what to do. ``MedsegError`` is what a caller
catches; anything else that escapes is a bug of ours and keeps its traceback::

    MedsegError
    ├── BundleError      the bundle, or an override of it, is wrong (every fault at once)
    ├── DatasetError     the training data as a whole cannot be used (every bad case at once)
    ├── ScanError        one scan cannot be read or is not what it claims to be
    │   └── GeometryError    its voxels have no single, certain place in the patient
    ├── CheckpointError  weights or a run folder cannot be used
    ├── TrainingError    a training run could not go on (the loss became NaN, no memory is left)
    ├── OutputError      a result could not be written
    │   └── BusyError        another process works in the folder; later it may be free
    ├── DownloadError    a data set could not be fetched, or is not what it claims to be
    └── MissingExtraError  an optional part is not installed, or cannot be used
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MOST_ALIKE = 2
"""From more cases than this with the same fault or warning on, one line speaks for all."""

_MOST_NAMED = 5
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?(?!\w)")
"""A figure; what T1 and label_2 hold is none."""


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

    Examples:
        >>> error = ScanError("the voxels end early; copy the file again", source="ct.nii.gz")
        >>> str(error)
        'ct.nii.gz: the voxels end early; copy the file again'
        >>> error.message
        'the voxels end early; copy the file again'
    """

    def __init__(
        self,
        message: str,
        *,
        source: str | Path | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.source: str | None = str(source) if source else None
        self.detail = detail

    def __str__(self) -> str:
        text = self.message
        if self.source:
            text = f"{self.source}: {text}"
        if self.detail:
            text = f"{text} ({self.detail})"
        return text


def recordable_text(error: BaseException) -> str:
    """Return what results, reports, logs and MLflow may hold of an error.

    That is the message of one of medseg's own, which names nobody, and of any other error the
    name of its class alone: the text of foreign errors quotes paths and headers.

    Examples:
        >>> recordable_text(ScanError("the voxels end early", source="mueller_hans.nii.gz"))
        'the voxels end early'
        >>> recordable_text(FileNotFoundError("mueller_hans.nii.gz"))
        'FileNotFoundError'
    """
    if isinstance(error, MedsegError):
        return error.message
    return type(error).__name__


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
        return cls(
            where, error.message, "; ".join(part for part in parts if part)
        )

    def __str__(self) -> str:
        behind = f" ({self.detail})" if self.detail else ""
        return f"{self.where}: {self.what}{behind}"


def join_faults(faults: Iterable[Fault], noun: str = "cases") -> Iterator[str]:
    """Yield a line for each fault of a case, or one for many cases with the same.

    Faults that differ in their figures alone are the same; of each figure the least and the
    greatest are shown. Those of one case are told one by one, since they differ in their details.

    Args:
        faults: Theirs.
        noun: What many cases are called.

    Examples:
        >>> faults = [Fault(f"case_{n}", f"holds {n} labels") for n in range(3)]
        >>> print(*join_faults(faults))
        3 cases (case_0, case_1, case_2): holds 0…2 labels
    """
    by_kind: dict[str, list[Fault]] = {}
    for fault in faults:
        by_kind.setdefault(find_kind(fault.what), []).append(fault)
    for alike in by_kind.values():
        if len({fault.where for fault in alike}) > MOST_ALIKE:
            yield _describe_alike(alike, noun)
        else:
            yield from map(str, alike)


def find_kind(text: str) -> str:
    """Return a text without its figures: texts of one kind differ in these alone."""
    return _NUMBER.sub("0", text)


def join_figures(texts: Sequence[str]) -> str:
    """Return one text for several of one kind, with the least and the greatest of each figure.

    Examples:
        >>> join_figures(["holds 3 of 7 labels", "holds 5 of 7 labels"])
        'holds 3…5 of 7 labels'
    """
    words = _NUMBER.split(texts[0])
    rows = [_NUMBER.findall(text) for text in texts]
    joined = words[0]
    for figures, word in zip(zip(*rows, strict=True), words[1:], strict=True):
        ordered = sorted(set(figures), key=_read_figure)
        ends = dict.fromkeys((ordered[0], ordered[-1]))
        joined += "…".join(ends) + word
    return joined


def _read_figure(text: str) -> tuple[float, str]:
    """Return what figures are sorted by; of what is no number, such as a version, its text."""
    try:
        return float(text.replace(",", "")), text
    except ValueError:
        return 0.0, text


def _describe_alike(alike: Sequence[Fault], noun: str) -> str:
    """Return one line for faults of one kind."""
    first = alike[0]
    names = list(dict.fromkeys(fault.where for fault in alike))
    listed = ", ".join(names[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    if more > 0:
        listed += f" and {more} more"
    shown = join_figures([fault.what for fault in alike])
    line = f"{len(names)} {noun} ({listed}): {shown}"
    if first.detail:
        line += f" ({first.where}: {first.detail})"
    return line


class _FaultsError(MedsegError):
    """An error that carries every fault there is, not only the first; ``message`` names none."""

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
        lines.extend(f"  {line}" for line in self._list_faults())
        return "\n".join(lines)

    def _list_faults(self) -> Iterable[str]:
        return map(str, self.faults)


class BundleError(_FaultsError):
    """A bundle, or an override of it, is wrong; ``faults`` names every field.

    Examples:
        >>> fault = Fault("training.epochs", "must be above 0, got -1")
        >>> print(BundleError("the bundle is wrong", [fault], source="bundle.json"))
        bundle.json: the bundle is wrong
          training.epochs: must be above 0, got -1
    """


class DatasetError(_FaultsError):
    """The training data as a whole cannot be used; ``faults`` names every bad case.

    Examples:
        >>> fault = Fault("case_07", "the label map is empty")
        >>> print(DatasetError("1 of 20 cases cannot be used", [fault]))
        1 of 20 cases cannot be used
          case_07: the label map is empty
    """

    def _list_faults(self) -> Iterable[str]:
        return join_faults(self.faults)


class ScanError(MedsegError):
    """One scan cannot be read or is not what it claims to be.

    Examples:
        >>> ScanError("3 pages; one picture per file is read", source="a.tif").source
        'a.tif'
    """


class GeometryError(ScanError):
    """A scan's voxels have no single, certain place in the patient.

    Examples:
        >>> isinstance(GeometryError("the affine is singular"), ScanError)
        True
    """


class CheckpointError(MedsegError):
    """Weights or a run folder cannot be used.

    Examples:
        >>> print(CheckpointError("the weights are damaged", source="model.pt", detail="no ZIP"))
        model.pt: the weights are damaged (no ZIP)
    """


class TrainingError(MedsegError):
    """A training run could not go on.

    Examples:
        >>> TrainingError("the loss became NaN at step 12").message
        'the loss became NaN at step 12'
    """


class OutputError(MedsegError):
    """A result could not be written.

    Examples:
        >>> print(OutputError("cannot write this file", source="out/a.nii.gz", detail="disk full"))
        out/a.nii.gz: cannot write this file (disk full)
    """


class BusyError(OutputError):
    """Another process works in the folder; the same call may succeed later.

    Examples:
        >>> isinstance(BusyError("another process is segmenting here"), OutputError)
        True
    """


class DownloadError(MedsegError):
    """A data set could not be fetched, or what arrived is not what it claims to be.

    Examples:
        >>> print(DownloadError("the server does not have it (HTTP 404)", detail="example.org"))
        the server does not have it (HTTP 404) (example.org)
    """


class MissingExtraError(MedsegError):
    """An optional part of medseg is not installed, or a package that adds to it is broken.

    The message says what to install, or which package to update.

    Examples:
        >>> MissingExtraError("install it with: pip install 'medseg[openvino]'").message
        "install it with: pip install 'medseg[openvino]'"
    """
