"""What every reader promises, and how a scan on disk finds its reader.

Contract of ``read(paths)``:

* the array is ``(channels, i, j, k)``, float32 for images; a label map keeps its integers;
* the affine maps voxel index to patient mm, RAS+, exactly as the file states it. Nothing is
  flipped, reordered, resampled or guessed; a file whose geometry is not certain is refused;
* a truncated or otherwise broken file raises ``ScanError``; it never comes back as zeros;
* opening a file runs no code from it, and its size is checked before memory is taken;
* no error or warning holds a patient's name, number or birth date.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import ScanError
from medseg.volume import Volume

MAX_VOXELS = 4_000_000_000
"""Largest volume read: about ten times a whole-body CT at full resolution."""


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of file and who reads it.

    Attributes:
        name: ``NIfTI``, ``DICOM``, …
        suffixes: Lower-case file name endings, dot included.
        read: Files of one volume → the image, float32.
        read_labels: Files of one volume → the label map with its own integer values, shape
            ``(1, i, j, k)``; a colour-coded picture keeps its three channels.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Sequence[Path]], Volume]
    read_labels: Callable[[Sequence[Path]], Volume]


def single_file(files: Sequence[Path], kind: str) -> Path:
    """Return the only file given.

    Raises:
        ScanError: If there are several: only DICOM spreads one volume over files.
    """
    if len(files) != 1:
        raise ScanError(f"{kind}: one file per volume is read, got {len(files)}")
    return files[0]
