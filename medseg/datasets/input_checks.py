"""Whether a scan can be what a bundle was trained on.

Refused, because the result would mean nothing:

* a picture for a bundle of volumes, and the reverse;
* a DICOM modality other than the channel's, where both are known: MR for a CT network;
* a single slice for a 3D network; a volume in which every voxel is the same;
* voxels more than 10 times as large or as small as the network's along every axis, which are
  lengths in another unit; and a scan that would be larger than any on the network's grid.

Flagged with a warning, because it can be right:

* voxels more than 10 times off along one axis only (thick slices);
* a CT channel that nowhere is below -200: not in HU, or cut out inside the body;
* an MR channel with values as CT has them for air;
* a channel, one of several, in which every voxel is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.bundle.spec import BundleSpec, ChannelSpec
from medseg.datasets.cases import Scan
from medseg.datasets.names import has_image_suffix
from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.headers import read_header
from medseg.io.formats import MAX_VOXELS
from medseg.plots.planes import DisplayOrientation
from medseg.volume import Volume

MOST_TIMES_OFF = 10.0
"""How far a voxel's size may be off the network's."""

AIR_BELOW_HU = -200.0
"""Every CT that shows skin, lung or bowel has voxels below this."""

_SURELY_HU = -900.0
_KNOWN = {
    "CT",
    "MR",
    "PT",
    "NM",
    "US",
    "XA",
    "MG",
    "CR",
    "DX",
    "RF",
    "OPT",
    "SM",
    "ES",
    "IO",
}
_SYNONYMS = {"MRI": "MR", "PET": "PT", "CBCT": "CT"}
_CHECK_UNITS = "check that its header gives lengths in mm"


def check_kind(scan: Scan, spec: BundleSpec) -> None:
    """Refuse what the files' kind and headers rule out, before a voxel is read.

    Raises:
        ScanError: If the scan is a picture and the bundle is for volumes, or the reverse, or a
            DICOM header names another modality than the bundle's channel.
    """
    wants_pictures = spec.preprocessing.input == "picture"
    if scan.is_picture and not wants_pictures:
        raise ScanError(
            "is a picture, and the bundle was trained on volumes; give NIfTI, NRRD, MHA or DICOM, "
            "or a bundle for pictures"
        )
    if wants_pictures and not scan.is_picture:
        raise ScanError(
            "is a volume, and the bundle was trained on pictures; give PNG, TIFF or JPEG, or a "
            "bundle for volumes"
        )
    if len(scan.parts) == len(spec.channels):
        for part, channel in zip(scan.parts, spec.channels, strict=True):
            _check_modality(part, channel)
    elif len(scan.parts) == 1:
        # One file may hold all channels; its header then speaks for each of them.
        _check_modality(scan.parts[0], spec.channels[0])


def check_volume(volume: Volume, spec: BundleSpec) -> tuple[str, ...]:
    """Compare a scan's voxels and their sizes with what the bundle was trained on.

    Args:
        volume: Shape ``(channels, i, j, k)``, with the bundle's channels; intensities as read.
        spec: The bundle.

    Returns:
        Warnings, in plain words; they name no file.

    Raises:
        ScanError: If every voxel has the same value.
        GeometryError: If shape or spacing rule it out.
    """
    if spec.network.dims == 3 and min(volume.shape) < 2:
        raise GeometryError(
            f"has {_format_shape(volume.shape)} voxels, a single slice, and the network is 3D; "
            "give the whole volume, or a bundle with a 2D network"
        )
    return (*_check_spacing(volume, spec), *_check_intensities(volume, spec))


# --- modality -----------------------------------------------------------------------------


def _check_modality(part: Sequence[Path], channel: ChannelSpec) -> None:
    modality = _read_modality(part[0])
    wanted = _normalize_modality(channel.modality)
    are_known = modality in _KNOWN and wanted in _KNOWN
    if are_known and modality != wanted:
        raise ScanError(
            f"is {modality} by its DICOM header, and the bundle's channel {channel.name} is "
            f"{wanted}; give {wanted}, or a bundle for {modality}"
        )


def _read_modality(file: Path) -> str:
    """Return the modality that a DICOM header names; ``""`` for other files."""
    if has_image_suffix(file.name):
        return ""
    header = read_header(file)
    return "" if header is None else _normalize_modality(header.modality)


def _normalize_modality(modality: str) -> str:
    upper = modality.strip().upper()
    return _SYNONYMS.get(upper, upper)


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
    view = DisplayOrientation.from_grid(volume.affine, volume.shape)
    spacings = _compare_spacings(view.spacing, spec)
    if not spacings.ratios:
        return
    if min(spacings.ratios) > MOST_TIMES_OFF:
        raise GeometryError(
            f"has {spacings}: more than {MOST_TIMES_OFF:g} times off; {_CHECK_UNITS}"
        )
    resampled = math.prod(view.shape) * spacings.growth
    if resampled > MAX_VOXELS:
        raise GeometryError(
            f"has {spacings}, which makes {resampled:.1e} voxels of its "
            f"{_format_shape(volume.shape)}; at most {MAX_VOXELS:.0e} are processed; {_CHECK_UNITS}"
        )
    if max(spacings.ratios) > MOST_TIMES_OFF:
        yield f"has {spacings}; the bundle was not trained on such voxels"


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


# --- intensities --------------------------------------------------------------------------


def _check_intensities(volume: Volume, spec: BundleSpec) -> Iterator[str]:
    lows = [float(channel.min()) for channel in volume.array]
    highs = [float(channel.max()) for channel in volume.array]
    if lows == highs:
        raise ScanError(
            f"every voxel has the value {lows[0]:g}, so there is nothing to segment; check "
            "that the file was written completely"
        )
    for channel, low, high in zip(spec.channels, lows, highs, strict=True):
        warning = _find_odd_range(channel, low, high)
        if warning:
            yield warning


def _find_odd_range(channel: ChannelSpec, low: float, high: float) -> str:
    """Say what is odd about the intensities of a channel, or nothing."""
    if low == high:
        return (
            f"every voxel of the channel {channel.name} has the value {low:g}"
        )
    modality = _normalize_modality(channel.modality)
    if modality == "CT" and low >= AIR_BELOW_HU:
        return (
            f"the channel {channel.name} has values from {low:g} to {high:g} and no air; "
            "if they are not Hounsfield units, the result is wrong"
        )
    if modality == "MR" and low <= _SURELY_HU:
        return (
            f"the channel {channel.name} has values from {low:g}, as CT has them in air, and "
            "the bundle was trained on MR"
        )
    return ""


def _format_shape(shape: Sequence[int]) -> str:
    return "×".join(str(size) for size in shape)


def _format_sizes(sizes: Sequence[float]) -> str:
    return " × ".join(f"{size:.3g}" for size in sizes)
