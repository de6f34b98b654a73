"""Whether a scan can be what a bundle was trained on: the one gate of every door.

``medseg segment``, ``Segmenter``, the MLflow model, ``medseg label``, ``review``, ``check`` and
``train`` all ask ``admit``; docs/explanation/checks.md lists the rules for people.

Refused, because the result would mean nothing:

* a picture for a bundle of volumes, and the reverse;
* a DICOM modality other than the channel's, where both are known: MR for a CT network;
* a single slice for a 3D network; a volume in which every voxel is the same;
* voxels more than 10 times as large or as small as the network's along every axis, which are
  lengths in another unit; and a scan that would be larger than any on the network's grid.

Flagged with a warning, because it can be right:

* voxels more than 10 times off along one axis only (thick slices);
* a CT, MR or PET that measures less than 2 mm or more than 5 m in all;
* a CT channel of which less than 0.1 % is in the range of air, or nothing is above it: not in
  HU, or cut out inside the body;
* an MR channel with values as CT has them for air;
* a channel, one of several, in which every voxel is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg._support.memory import explain_lack_of_memory
from medseg.bundle.spec import BundleSpec, ChannelSpec
from medseg.datasets.intensity_checks import check_intensities
from medseg.datasets.modalities import KNOWN_MODALITIES, normalize_modality
from medseg.errors import GeometryError, ScanError
from medseg.io.formats import MAX_VOXELS
from medseg.names import has_image_suffix
from medseg.preprocessing.grid import find_spacing_of_axes
from medseg.volume import Volume

if TYPE_CHECKING:
    from medseg.datasets.cases import Scan

MOST_TIMES_OFF = 10.0
"""How far a voxel's size may be off the network's."""

EXTENTS_MM = (2.0, 5000.0)
"""What a CT, MR or PET measures along its longest axis; a patient is 0.2 to 2 m long."""

_OF_PATIENTS = {"CT", "MR", "PT"}
OTHER_MODALITY = " by its DICOM header, and the bundle's channel"
"""What is said of every scan of another modality than the bundle's."""

_CHECK_UNITS = "check that its header gives lengths in mm"


def check_kind(scan: Scan, spec: BundleSpec) -> None:
    """Refuse what the files' kind and headers rule out, before a voxel is read.

    Raises:
        ScanError: If the scan is a picture and the bundle is for volumes, or the reverse, or a
            DICOM header names another modality than the bundle's channel.
    """
    _refuse_other_kind(scan.is_picture, spec)
    modalities = [_read_modality(part[0]) for part in scan.parts]
    _refuse_other_modality(modalities, spec)


def admit(volume: Volume, spec: BundleSpec) -> Volume:
    """Return a scan with what is doubtful about it among its warnings, or refuse it.

    Args:
        volume: As for ``check_volume``.
        spec: The bundle.

    Raises:
        ScanError: As ``check_volume``.
        GeometryError: As ``check_volume``.
    """
    doubts = check_volume(volume, spec)
    return replace(volume, warnings=(*volume.warnings, *doubts))


def check_volume(volume: Volume, spec: BundleSpec) -> tuple[str, ...]:
    """Compare a scan with what the bundle was trained on: its kind, its voxels and their sizes.

    Args:
        volume: Shape ``(channels, i, j, k)``, with the bundle's channels; intensities as read.
        spec: The bundle.

    Returns:
        Warnings, in plain words; they name no file.

    Raises:
        ScanError: If it is of another kind or modality, or every voxel has the same value; or if
            there is no memory to look at them.
        GeometryError: If shape or spacing rule it out.
    """
    is_picture = volume.is_picture
    if is_picture is None and volume.shape[2] > 1:
        is_picture = False
    _refuse_other_kind(is_picture, spec)
    _refuse_other_modality(volume.modalities, spec)
    if spec.network.dims == 3 and min(volume.shape) < 2:
        raise GeometryError(
            f"has {_format_shape(volume.shape)} voxels, a single slice, and the network is 3D; "
            "give the whole volume, or a bundle with a 2D network"
        )
    doubts_of_grid = check_grid(volume, spec)
    with explain_lack_of_memory(volume.source):
        doubts_of_intensities = tuple(check_intensities(volume, spec))
    return (*doubts_of_grid, *doubts_of_intensities)


def check_grid(
    volume: Volume, spec: BundleSpec | None = None
) -> tuple[str, ...]:
    """Compare the voxel sizes of a scan or a label map with those of the network, and of people.

    Args:
        volume: Of which the voxels are not looked at.
        spec: The bundle; without one, sizes are only compared with those of people.

    Returns:
        Warnings, in plain words; they name no file.

    Raises:
        GeometryError: If the voxels' size rules it out.
    """
    doubts: list[str] = []
    if _shows_patient(spec):
        doubts += _find_odd_extent(volume)
    if spec is not None:
        doubts += _check_spacing(volume, spec)
    return tuple(doubts)


# --- kind and modality --------------------------------------------------------------------


def _refuse_other_kind(is_picture: bool | None, spec: BundleSpec) -> None:
    """Refuse a picture for a bundle of volumes and the reverse; what is unknown passes."""
    wants_pictures = spec.preprocessing.input == "picture"
    if is_picture is None or is_picture == wants_pictures:
        return
    if wants_pictures:
        raise ScanError(
            "is a volume, and the bundle was trained on pictures; give PNG, TIFF or JPEG, or a "
            "bundle for volumes"
        )
    raise ScanError(
        "is a picture, and the bundle was trained on volumes; give NIfTI, NRRD, MHA or DICOM, "
        "or a bundle for pictures"
    )


def _refuse_other_modality(modalities: Sequence[str], spec: BundleSpec) -> None:
    """Compare what headers name, one modality per channel or one for all, with the bundle's."""
    # One file may hold all channels; its header then speaks for the first.
    if len(modalities) not in (1, len(spec.channels)):
        return
    for modality, channel in zip(modalities, spec.channels, strict=False):
        _check_modality(normalize_modality(modality), channel)


def _check_modality(modality: str, channel: ChannelSpec) -> None:
    wanted = normalize_modality(channel.modality)
    are_known = modality in KNOWN_MODALITIES and wanted in KNOWN_MODALITIES
    if are_known and modality != wanted:
        raise ScanError(
            f"is {modality}{OTHER_MODALITY} {channel.name} is "
            f"{wanted}; give {wanted}, or a bundle for {modality}"
        )


def _read_modality(file: Path) -> str:
    """Return the modality that a DICOM header names; ``""`` for other files."""
    if has_image_suffix(file.name):
        return ""
    from medseg.io.dicom.headers import read_header

    header = read_header(file)
    return "" if header is None else header.modality


# --- spacing ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Spacings:
    """Voxel sizes of a scan beside those of the network's grid, where that has one.

    Attributes:
        scan: In mm, along the axes for which the network's grid has a size.
        network: The same of the network's grid.
    """

    scan: tuple[float, ...]
    network: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """How many times the larger of each two sizes is the smaller."""
        ratios = []
        for own, wanted in zip(self.scan, self.network, strict=True):
            ratios.append(max(own / wanted, wanted / own))
        return ratios

    @property
    def growth(self) -> float:
        """How many voxels of the network's grid one voxel of the scan becomes."""
        return math.prod(self.scan) / math.prod(self.network)

    def __str__(self) -> str:
        scan = _format_sizes(self.scan)
        network = _format_sizes(self.network)
        return f"{scan} mm per voxel, and the network sees {network} mm"


def _check_spacing(volume: Volume, spec: BundleSpec) -> Iterator[str]:
    spacing = find_spacing_of_axes(volume, spec.preprocessing)
    spacings = _compare_spacings(spacing, spec)
    if not spacings.ratios:
        return
    if min(spacings.ratios) > MOST_TIMES_OFF:
        raise GeometryError(
            f"has {spacings}: more than {MOST_TIMES_OFF:g} times off; {_CHECK_UNITS}"
        )
    resampled = math.prod(volume.shape) * spacings.growth
    if resampled > MAX_VOXELS:
        raise GeometryError(
            f"has {spacings}, which makes {resampled:.1e} voxels of its "
            f"{_format_shape(volume.shape)}; at most {MAX_VOXELS:.0e} are processed; {_CHECK_UNITS}"
        )
    if max(spacings.ratios) > MOST_TIMES_OFF:
        yield (
            f"has {spacings}: more than {MOST_TIMES_OFF:g} times off along an axis"
        )


def _shows_patient(spec: BundleSpec | None) -> bool:
    """Tell whether a bundle is for volumes of patients, as far as is known."""
    if spec is None:
        return True
    modalities = {normalize_modality(each.modality) for each in spec.channels}
    return modalities <= _OF_PATIENTS and spec.preprocessing.input == "volume"


def _find_odd_extent(volume: Volume) -> Iterator[str]:
    """Say so if a volume, which one slice may not be, is smaller or larger than any patient."""
    extents = np.multiply(volume.shape, volume.spacing)
    longest = float(extents.max())
    least, most = EXTENTS_MM
    if longest < least:
        yield f"measures less than {least:g} mm in all; {_CHECK_UNITS}"
    if longest > most and min(volume.shape) > 1:
        yield f"measures more than {most / 1000:g} m in all; {_CHECK_UNITS}"


def _compare_spacings(spacing: Sequence[float], spec: BundleSpec) -> _Spacings:
    """Compare along the axes for which the network's grid has a size."""
    scan = []
    network = []
    for own, wanted in zip(
        spacing, spec.preprocessing.spacing_mm or (), strict=False
    ):
        if wanted is not None:
            scan.append(own)
            network.append(wanted)
    return _Spacings(tuple(scan), tuple(network))


def _format_shape(shape: Sequence[int]) -> str:
    return "×".join(str(size) for size in shape)


def _format_sizes(sizes: Sequence[float]) -> str:
    return " × ".join(f"{size:.3g}" for size in sizes)
