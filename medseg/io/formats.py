"""What every image format promises: ``Format``, the contract of ``medseg.image_formats``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from medseg._support.files import refuse_special
from medseg.errors import ScanError
from medseg.volume import Volume

MAX_VOXELS = 4_000_000_000
"""Largest volume read: about ten times a whole-body CT at full resolution."""

_SUFFIX = re.compile(r"\.[^A-Z]+")


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of image file, and who reads and writes it.

    A package adds one by an entry point of the group ``medseg.image_formats`` that leads to an
    object of this class. ``medseg.testing.image_formats`` holds the test suite of this contract.

    Contract of ``read`` and ``read_labels``:

    * the array is ``(channels, i, j, k)``, float32 for images; a label map keeps its values, as
      unsigned integers;
    * the affine maps a voxel's index to its position in the patient in mm, RAS+, exactly as the
      file states it. Nothing is flipped, reordered, resampled or guessed; a file whose geometry
      is not certain is refused with ``GeometryError``;
    * voxels of an image that are NaN or infinite take the lowest value of their channel, with a
      warning (``medseg.padding.replace_nonfinite``);
    * a truncated or otherwise broken file raises ``ScanError``; it never comes back as zeros,
      and no other class of error escapes;
    * opening a file runs no code from it, and its size is checked before memory is taken
      (``MAX_VOXELS``);
    * several files raise ``ScanError``: only DICOM spreads one volume over files;
    * nobody is named: the message of an error, and the warnings of a volume, hold no path, no
      file name and no text of the header. Those belong into the error's ``source`` and
      ``detail``, and into ``Volume.source``.

    Contract of ``write_labels``:

    * reading the file gives the same label values on the grid of ``like``, or ``OutputError`` is
      raised because the format cannot hold them;
    * equal labels give equal bytes, and nothing in the file says who the patient is.

    Attributes:
        name: What people call it: ``NIfTI``, ``DICOM``, …
        suffixes: Lower-case file name endings, dot included, that no other format claims.
        read: Files of one volume → the image, float32.
        read_labels: Files of one volume → the label map with its own integer values, shape
            ``(1, i, j, k)``; a colour-coded picture keeps its three channels.
        write_labels: Writes unsigned labels, shape ``(i, j, k)``, to a path on the grid of a
            volume. The path is a temporary one that has the suffix asked for; it becomes the
            real one in one step. ``None`` if the format is only read.
        label_suffixes: Those of the suffixes under which ``write_labels`` writes.
        is_picture: Whether a file is one slice that has no position in a patient.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Sequence[Path]], Volume]
    read_labels: Callable[[Sequence[Path]], Volume]
    write_labels: Callable[[Path, npt.NDArray[Any], Volume], None] | None = None
    label_suffixes: tuple[str, ...] = ()
    is_picture: bool = False


def check_format(image_format: object) -> None:
    """Refuse what is no image format, or states its suffixes in a way that nothing would match.

    Raises:
        TypeError: If it is no ``Format`` or one of its functions cannot be called.
        ValueError: If its suffixes are none, or those it writes are not among those it reads.
    """
    if not isinstance(image_format, Format):
        raise TypeError(
            f"an image format is a medseg.io.Format, got {type(image_format).__name__}"
        )
    if not (callable(image_format.read) and callable(image_format.read_labels)):
        raise TypeError("read and read_labels must be functions")
    if not image_format.suffixes:
        raise ValueError("an image format needs at least one suffix")
    for suffix in image_format.suffixes:
        if not _SUFFIX.fullmatch(suffix):
            raise ValueError(
                f"a suffix is lower-case and begins with a dot, got '{suffix}'"
            )
    if not set(image_format.label_suffixes) <= set(image_format.suffixes):
        raise ValueError("label_suffixes must be among the suffixes")
    if bool(image_format.label_suffixes) != (
        image_format.write_labels is not None
    ):
        raise ValueError(
            "write_labels and label_suffixes are given together or not at all"
        )


def single_file(files: Sequence[Path], kind: str) -> Path:
    """Return the only file given.

    Args:
        files: What a reader was given.
        kind: The format's name, for the error.

    Raises:
        ScanError: If there are several: only DICOM spreads one volume over files; or if it is a
            device, a pipe or a socket.
    """
    if len(files) != 1:
        raise ScanError(
            f"{kind}: one file per volume is read, got {len(files)}; give one of them",
            source=files[0] if files else None,
        )
    refuse_special(files[0])
    return files[0]
