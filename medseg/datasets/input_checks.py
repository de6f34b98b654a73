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
from pathlib import Path

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Scan
from medseg.datasets.names import is_picture, split_suffix
from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.headers import read_header
from medseg.io.dicom.volume import DICOM
from medseg.io.formats import MAX_VOXELS
from medseg.plots.planes import DisplayOrientation
from medseg.volume import Volume

MOST_TIMES_OFF = 10.0
"""How far a voxel's size may be off the network's."""

AIR_BELOW_HU = -200.0
"""Every CT that shows skin, lung or bowel has voxels below this."""

_SURELY_HU = -900.0
_KNOWN = {"CT", "MR", "PT", "NM", "US", "XA", "MG", "CR", "DX", "RF", "OPT", "SM", "ES", "IO"}
_ALSO = {"MRI": "MR", "PET": "PT", "CBCT": "CT"}


def check_kind(scan: Scan, spec: BundleSpec) -> None:
    """Refuse what the files' kind and headers rule out, before a voxel is read.

    Raises:
        ScanError: If the scan is a picture and the bundle is for volumes, or the reverse, or a
            DICOM header names another modality than the bundle's channel.
    """
    pictures = all(is_picture(file) for part in scan.parts for file in part)
    wants_pictures = spec.preprocessing.input == "picture"
    if pictures and not wants_pictures:
        raise ScanError(
            "is a picture, and the bundle was trained on volumes; give NIfTI, NRRD, MHA or DICOM, "
            "or a bundle for pictures"
        )
    if wants_pictures and not pictures:
        raise ScanError(
            "is a volume, and the bundle was trained on pictures; give PNG, TIFF or JPEG, or a "
            "bundle for volumes"
        )
    if len(scan.parts) in (1, len(spec.channels)):
        # One file may hold all channels; its header then speaks for each of them.
        wanted = spec.channels if len(scan.parts) > 1 else spec.channels[:1]
        for part, channel in zip(scan.parts, wanted, strict=True):
            _check_modality(_modality_of(part), _plain(channel.modality), channel.name)


def check_volume(volume: Volume, spec: BundleSpec) -> tuple[str, ...]:
    """Compare a scan's voxels and their sizes with what the bundle was trained on.

    Args:
        volume: Shape ``(channels, i, j, k)``, with the bundle's channels; intensities as read.
        spec: The bundle.

    Returns:
        Warnings, in plain words.

    Raises:
        ScanError: If every voxel has the same value.
        GeometryError: If shape or spacing rule it out.
    """
    if spec.network.dims == 3 and min(volume.shape) < 2:
        raise GeometryError(
            f"has {_times(volume.shape)} voxels, a single slice, and the network is 3D; give the "
            "whole volume, or a bundle with a 2D network"
        )
    return (*_odd_spacing(volume, spec), *_odd_intensities(volume, spec))


def _modality_of(part: Sequence[Path]) -> str:
    file = part[0]
    if split_suffix(file.name)[1] not in ("", *DICOM.suffixes):
        return ""
    header = read_header(file)
    return "" if header is None else _plain(header.modality)


def _check_modality(found: str, wanted: str, channel: str) -> None:
    if found != wanted and found in _KNOWN and wanted in _KNOWN:
        raise ScanError(
            f"is {found} by its DICOM header, and the bundle's channel {channel} is {wanted}; "
            f"give {wanted}, or a bundle for {found}"
        )


def _plain(modality: str) -> str:
    upper = modality.strip().upper()
    return _ALSO.get(upper, upper)


def _odd_spacing(volume: Volume, spec: BundleSpec) -> Iterator[str]:
    wanted = spec.preprocessing.spacing_mm
    if wanted is None:
        return
    view = DisplayOrientation.of(volume.affine, volume.shape)
    pairs = [(has, mm) for has, mm in zip(view.spacing, wanted, strict=True) if mm is not None]
    off = [max(has / mm, mm / has) for has, mm in pairs]
    spacings = (
        f"{_mm([has for has, _ in pairs])} mm per voxel, and the network sees "
        f"{_mm([mm for _, mm in pairs])} mm"
    )
    if off and min(off) > MOST_TIMES_OFF:
        raise GeometryError(
            f"has {spacings}: more than {MOST_TIMES_OFF:g} times off; see whether its header "
            "gives lengths in mm"
        )
    grid = math.prod(
        n * (has / mm if mm else 1)
        for n, has, mm in zip(view.shape, view.spacing, wanted, strict=True)
    )
    if grid > MAX_VOXELS:
        raise GeometryError(
            f"has {spacings}, which makes {grid:.1e} voxels of its {_times(volume.shape)}; at most "
            f"{MAX_VOXELS:.0e} are worked on; see whether its header gives lengths in mm"
        )
    if off and max(off) > MOST_TIMES_OFF:
        yield f"has {spacings}; the bundle was not trained on such voxels"


def _odd_intensities(volume: Volume, spec: BundleSpec) -> Iterator[str]:
    lows = [float(channel.min()) for channel in volume.array]
    highs = [float(channel.max()) for channel in volume.array]
    flat = [low == high for low, high in zip(lows, highs, strict=True)]
    if all(flat):
        raise ScanError(
            f"every voxel has the value {lows[0]:g}, so there is nothing to see; see whether the "
            "file was written completely"
        )
    for channel, low, high, is_flat in zip(spec.channels, lows, highs, flat, strict=True):
        modality = _plain(channel.modality)
        if is_flat:
            yield f"every voxel of the channel {channel.name} has the value {low:g}"
        elif modality == "CT" and low >= AIR_BELOW_HU:
            yield (
                f"the channel {channel.name} has values from {low:g} to {high:g}, nowhere air; "
                "if they are not Hounsfield units, the result is wrong"
            )
        elif modality == "MR" and low <= _SURELY_HU:
            yield (
                f"the channel {channel.name} has values from {low:g}, as CT has them in air, and "
                "the bundle was trained on MR"
            )


def _times(shape: Sequence[int]) -> str:
    return "×".join(str(n) for n in shape)


def _mm(sizes: Sequence[float]) -> str:
    return " × ".join(f"{size:.3g}" for size in sizes)
