"""A trained bundle's networks for OpenVINO, and how far its label maps agree with PyTorch's."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from medseg._support.files import atomic_folder
from medseg._support.platform.files import rename
from medseg.bundle.bundle import Bundle, with_trained
from medseg.bundle.hashes import hash_file, hash_network
from medseg.bundle.spec import AgreementSpec, BundleSpec
from medseg.commands.bundle_files import copy_bundle, require_empty
from medseg.datasets.integrity import read_scan
from medseg.datasets.scans import find_scans
from medseg.events import Listener, Progress, notify
from medseg.inference.backends import openvino
from medseg.inference.backends.exported import OPENVINO, write_agreement
from medseg.inference.segmenter import Segmenter
from medseg.networks.loading import get_output_layout, load_network
from medseg.testing import make_phantom
from medseg.volume import Volume

_TASK = "comparing label maps"
_PHANTOMS = 3
_PHANTOM_WINDOWS = 1.5
"""Size of a phantom along each axis, in windows: so that windows overlap."""
_DEFAULT_SPACING_MM = 1.5


def export_to_openvino(
    bundle: Bundle,
    out: Path | None,
    comparison: Comparison,
    listeners: Sequence[Listener],
) -> tuple[Path, AgreementSpec]:
    """Export a bundle's networks for OpenVINO, and measure how far label maps agree.

    Until all is measured, ``out`` is not there, and the bundle has what was exported before.

    Args:
        bundle: A trained bundle.
        out: A new or empty folder for a copy of it; unless given it gets them itself.
        comparison: What to compare label maps on.
        listeners: Told of progress.

    Returns:
        The folder that is new, and the agreement.

    Raises:
        MissingExtraError: If OpenVINO is not installed.
        OutputError: If ``out`` is not empty or cannot be written.
        ScanError: If a scan cannot be read.
        MedsegError: If a network cannot be converted.
    """
    openvino.require()
    if out is not None:
        require_empty(out)
        with atomic_folder(out) as folder:
            agreement = _convert_copy(bundle, folder, comparison, listeners)
        return out, agreement
    target = bundle.folder / OPENVINO
    with atomic_folder(target) as folder:
        copy = folder / "copy"
        copy.mkdir()
        agreement = _convert_copy(bundle, copy, comparison, listeners)
        for file in (copy / OPENVINO).iterdir():
            rename(file, folder / file.name)
        shutil.rmtree(copy)
    return target, agreement


@dataclass(frozen=True, slots=True)
class Comparison:
    """What label maps are compared on.

    Attributes:
        readers: Each makes or reads one volume.
        made_up: Whether the volumes are phantoms.
    """

    readers: Sequence[Callable[[], Volume]]
    made_up: bool


def choose_comparison(spec: BundleSpec, scans: str | Path | None) -> Comparison:
    """Return what label maps are compared on: scans, or phantoms unless some are given.

    Raises:
        DatasetError: If there is no scan.
    """
    if scans is None:
        return _compare_on_phantoms(spec)
    return _compare_on_scans(spec, Path(scans))


def _compare_on_scans(spec: BundleSpec, path: Path) -> Comparison:
    channels = len(spec.channels)
    scans = find_scans(path, channels, channel_specs=spec.channels).scans
    readers = [partial(read_scan, scan, channels) for scan in scans]
    return Comparison(readers, made_up=False)


def _compare_on_phantoms(spec: BundleSpec) -> Comparison:
    readers = [
        partial(_make_phantom_volume, spec, seed) for seed in range(_PHANTOMS)
    ]
    return Comparison(readers, made_up=True)


def _make_phantom_volume(spec: BundleSpec, seed: int) -> Volume:
    """Return a phantom of one and a half windows along each axis, with every channel."""
    channels = len(spec.channels)
    shape, spacing = _choose_phantom_grid(spec)
    first_seed = seed * channels
    phantoms = []
    for channel in range(channels):
        phantom, _ = make_phantom(first_seed + channel, shape, spacing)
        phantoms.append(phantom)
    array = np.concatenate([phantom.array for phantom in phantoms])
    if spec.preprocessing.input == "picture":
        middle = shape[2] // 2
        array = array[..., middle : middle + 1]
    first = phantoms[0]
    return Volume(np.asfortranarray(array), first.affine, source=first.source)


def _choose_phantom_grid(
    spec: BundleSpec,
) -> tuple[tuple[int, int, int], float]:
    """Return the voxels of a phantom along each axis, and their size in mm."""
    configured = spec.preprocessing.spacing_mm or (None, None, None)
    spacing_mm = [mm or _DEFAULT_SPACING_MM for mm in configured]
    patch = (*spec.training.patch, 16)[:3]  # of a 2D network, 16 slices
    spacing = max(spacing_mm)
    i, j, k = (
        math.ceil(_PHANTOM_WINDOWS * n * mm / spacing)
        for n, mm in zip(patch, spacing_mm, strict=True)
    )
    return (i, j, k), spacing


def _convert_copy(
    bundle: Bundle,
    folder: Path,
    comparison: Comparison,
    listeners: Sequence[Listener],
) -> AgreementSpec:
    """Copy a bundle, give the copy its networks for OpenVINO, and measure how far they agree."""
    copy_bundle(bundle, folder)
    copy = with_trained(Bundle(bundle.spec, folder), bundle.trained)
    exported = folder / OPENVINO
    exported.mkdir()
    _write_openvino(copy, exported)
    agreement = AgreementSpec(
        network=hash_network(copy),
        files={
            file.name: hash_file(file) for file in sorted(exported.iterdir())
        },
        made_with={
            "medseg": version("medseg"),
            "torch": version("torch"),
            "openvino": openvino.get_version(),
        },
    )
    # As yet it states no agreement: the networks are known by it while they are measured.
    write_agreement(agreement, exported)
    measured = _measure_agreement(copy, comparison, listeners)
    agreement = agreement.model_copy(update=measured)
    write_agreement(agreement, exported)
    return agreement


def _write_openvino(bundle: Bundle, folder: Path) -> None:
    channels = get_output_layout(bundle).channels
    for member in bundle.members:
        model = openvino.convert(
            load_network(bundle, member), bundle.spec, channels
        )
        openvino.write_model(model, folder / f"{member.stem}.xml")


def _measure_agreement(
    bundle: Bundle, comparison: Comparison, listeners: Sequence[Listener]
) -> dict[str, int | bool]:
    """Segment volumes with both backends; count the voxels that differ."""
    reference = Segmenter(bundle, "cpu", backend="torch", precision="fp32")
    exported = Segmenter(bundle, "cpu", backend="openvino", precision="fp32")
    total = len(comparison.readers)
    voxels = labelled = differ = 0
    for done, read in enumerate(comparison.readers):
        notify(listeners, Progress(_TASK, done, total))
        volume = read()
        wanted = reference.segment(volume).labels
        got = exported.segment(volume).labels
        foreground = (wanted > 0) | (got > 0)
        voxels += wanted.size
        labelled += int(foreground.sum())
        differ += int((wanted != got).sum())
    notify(listeners, Progress(_TASK, total, total))
    return {
        "scans": total,
        "made_up": comparison.made_up,
        "voxels": voxels,
        "labelled": labelled,
        "differ": differ,
    }
