"""``medseg export``: a trained bundle for other software, or for a faster backend."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from medseg._support.files import atomic_folder, write_atomically
from medseg._support.folders import refuse_file
from medseg.bundle.bundle import (
    ASSEMBLY_FILE,
    Assembly,
    Bundle,
    list_networks,
    load_bundle,
)
from medseg.bundle.hashes import hash_file, hash_network
from medseg.bundle.spec import AgreementSpec, BundleSpec
from medseg.bundle.spec_files import format_assembly, format_spec
from medseg.commands.bundle_files import (
    copy_bundle,
    copy_files,
    copy_weights,
    read_scores,
    write_configs,
)
from medseg.datasets.integrity import read_scan
from medseg.datasets.scans import find_scans
from medseg.errors import CheckpointError, MedsegError, OutputError
from medseg.events import Listener, Notice, Progress, notify
from medseg.inference.backends import openvino
from medseg.inference.backends.exported import OPENVINO, write_agreement
from medseg.inference.segmenter import Segmenter
from medseg.interop.monai_bundle.departures import list_departures
from medseg.interop.onnx import require_onnx, write_onnx
from medseg.networks.levels import FinestLevel
from medseg.networks.loading import get_output_layout, load_network
from medseg.testing import make_phantom
from medseg.volume import Volume

KINDS = ("monai", "onnx", "openvino")

_TASK = "comparing label maps"
_EACH_ALONE = (
    "each bundle of the assembly is exported by itself: other software neither paints their labels "
    "into one map nor crops one by another"
)
_PHANTOMS = 3
_PHANTOM_WINDOWS = 1.5
"""Size of a phantom along each axis, in windows: so that windows overlap."""
_DEFAULT_SPACING_MM = 1.5


@dataclass(frozen=True, slots=True)
class Export:
    """What was exported.

    Attributes:
        folder: Where it is.
        agreement: How far its label maps are those of PyTorch, if that was measured.

    Examples:
        >>> from pathlib import Path
        >>> from medseg import Export
        >>> exported = Export(Path("liver_monai"))
        >>> exported.agreement is None  # nothing to measure: stock MONAI runs the same weights
        True
    """

    folder: Path
    agreement: AgreementSpec | None = None


def export(
    bundle: str | Path,
    out: str | Path | None = None,
    *,
    to: str,
    scans: str | Path | None = None,
    listeners: Sequence[Listener] = (),
) -> Export:
    """Export a trained bundle.

    Args:
        bundle: A trained bundle; of an assembly each of its bundles is exported.
        out: A new or empty folder. For ``openvino`` it becomes a copy of the bundle that holds
            the exported networks; unless given, the bundle itself gets them.
        to: ``monai``: a MONAI Bundle; ``onnx``: each network as an ONNX file; ``openvino``:
            networks for the backend of this name.
        scans: For ``openvino``, what to compare label maps on; phantoms unless given.
        listeners: Told of progress.

    Returns:
        Where it is, and for ``openvino`` how far label maps agree.

    Raises:
        BundleError: If the bundle is wrong.
        CheckpointError: If its weights are absent, damaged, or of another network.
        MissingExtraError: If packages of the extra ``onnx`` or ``openvino`` are missing.
        OutputError: If ``out`` is not empty or cannot be written.
        ScanError: If a scan cannot be read.
        MedsegError: If there is no such kind, or the network cannot be converted.

    Examples:
        >>> import medseg
        >>> medseg.export("runs/liver", "liver_paper", to="paper")
        Traceback (most recent call last):
        ...
        medseg.errors.MedsegError: --to takes monai, onnx, openvino; got 'paper'
    """
    loaded = _load(bundle, to, scans)
    target = None if out is None else Path(out)
    if target is not None and target.resolve() == loaded.folder:
        target = None
    if isinstance(loaded, Assembly):
        return _export_bundles(loaded, target, to, scans, listeners)
    if to == "openvino":
        return _export_to_openvino(loaded, target, scans, listeners)
    if target is None:
        raise OutputError(
            f"--to {to} needs a folder to write to, other than the bundle's own"
        )
    _require_empty(target)
    if to == "monai":
        _say_departures(loaded.spec, listeners)
    write = _WRITERS[to]
    with atomic_folder(target) as folder:
        write(loaded, folder)
    return Export(target)


def _export_bundles(
    assembly: Assembly,
    out: Path | None,
    to: str,
    scans: str | Path | None,
    listeners: Sequence[Listener],
) -> Export:
    """Export each bundle of an assembly, into its folder in ``out``.

    Networks for OpenVINO make the copy, or the assembly itself, an assembly that is faster. Other
    software runs each bundle alone: it knows neither painting nor crops.
    """
    if out is None and to != "openvino":
        raise OutputError(
            f"--to {to} needs a folder to write to, other than the assembly's own"
        )
    if to != "openvino":
        notify(listeners, Notice(_EACH_ALONE))
    if out is None:
        return _export_each(assembly, None, to, scans, listeners)
    _require_empty(out)
    with atomic_folder(out) as folder:
        made = _export_each(assembly, folder, to, scans, listeners)
        if to == "openvino":
            text = format_assembly(assembly.assembly)
            write_atomically(folder / ASSEMBLY_FILE, text)
    return Export(out, made.agreement)


def _export_each(
    assembly: Assembly,
    out: Path | None,
    to: str,
    scans: str | Path | None,
    listeners: Sequence[Listener],
) -> Export:
    """Export every bundle; the agreement is that of the one that agrees least."""
    agreements = []
    for name, bundle in list_networks(assembly).items():
        target = None if out is None else out / name
        made = export(
            bundle.folder, target, to=to, scans=scans, listeners=listeners
        )
        if made.agreement is not None:
            agreements.append(made.agreement)
    least = min(agreements, key=lambda each: each.agreement, default=None)
    return Export(out or assembly.folder, least)


def _load(bundle: str | Path, to: str, scans: str | Path | None) -> Bundle:
    """Load a bundle that can be exported as asked."""
    if to not in KINDS:
        raise MedsegError(f"--to takes {', '.join(KINDS)}; got '{to}'")
    if scans is not None and to != "openvino":
        raise MedsegError(
            "--scans goes with --to openvino, which compares label maps on them"
        )
    loaded = load_bundle(bundle)
    if not loaded.is_trained:
        raise CheckpointError(
            "the bundle has no weights; train it first: medseg train BUNDLE",
            source=loaded.folder,
        )
    return loaded


def _say_departures(spec: BundleSpec, listeners: Sequence[Listener]) -> None:
    for departure in list_departures(spec):
        notify(listeners, Notice(f"stock MONAI differs: {departure}"))


def _require_empty(folder: Path) -> None:
    refuse_file(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError("is not empty; name a new folder", source=folder)


def _write_monai(bundle: Bundle, folder: Path) -> None:
    """Write the bundle as stock MONAI wants it: configs, weights and card."""
    for member in bundle.members:
        # Makes sure that the weights are of this network.
        load_network(bundle, member)
    copy_weights(bundle, folder)
    write_configs(bundle, folder, read_scores(bundle))
    copy_files(bundle.folder, folder, ("docs", "LICENSE"))


def _write_onnx(bundle: Bundle, folder: Path) -> None:
    require_onnx()
    spec = bundle.spec
    window = (spec.input_channels, *spec.training.patch)
    metadata = {"medseg.bundle": format_spec(spec)}
    labelled = get_output_layout(bundle).labelled
    for member in bundle.members:
        network = FinestLevel(load_network(bundle, member), labelled).eval()
        write_onnx(network, window, folder / f"{member.stem}.onnx", metadata)


_WRITERS = {"monai": _write_monai, "onnx": _write_onnx}


def _export_to_openvino(
    bundle: Bundle,
    out: Path | None,
    scans: str | Path | None,
    listeners: Sequence[Listener],
) -> Export:
    """Export for OpenVINO into a bundle itself, or into a copy of it."""
    openvino.require()
    if scans is None:
        comparison = _compare_on_phantoms(bundle.spec)
    else:
        comparison = _compare_on_scans(bundle.spec, Path(scans))
    if out is None:
        return _convert(bundle, comparison, listeners)
    _require_empty(out)
    with atomic_folder(out) as folder:
        copy_bundle(bundle, folder)
        exported = _convert(Bundle(bundle.spec, folder), comparison, listeners)
    return Export(out, exported.agreement)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What label maps are compared on.

    Attributes:
        readers: Each makes or reads one volume.
        made_up: Whether the volumes are phantoms.
    """

    readers: Sequence[Callable[[], Volume]]
    made_up: bool


def _compare_on_scans(spec: BundleSpec, path: Path) -> _Comparison:
    channels = len(spec.channels)
    scans = find_scans(path, channels, channel_specs=spec.channels).scans
    readers = [partial(read_scan, scan, channels) for scan in scans]
    return _Comparison(readers, made_up=False)


def _compare_on_phantoms(spec: BundleSpec) -> _Comparison:
    readers = [
        partial(_make_phantom_volume, spec, seed) for seed in range(_PHANTOMS)
    ]
    return _Comparison(readers, made_up=True)


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


def _convert(
    bundle: Bundle, comparison: _Comparison, listeners: Sequence[Listener]
) -> Export:
    """Write a bundle's networks for OpenVINO into it, and measure how far they agree."""
    target = bundle.folder / OPENVINO
    with atomic_folder(target) as folder:
        _write_openvino(bundle, folder)
        agreement = AgreementSpec(
            network=hash_network(bundle),
            files={
                file.name: hash_file(file) for file in sorted(folder.iterdir())
            },
            made_with={
                name: version(name) for name in ("medseg", "torch", "openvino")
            },
        )
        # As yet it states no agreement, so that nothing is used before it is measured.
        write_agreement(agreement, folder)
    try:
        measured = _measure_agreement(bundle, comparison, listeners)
        agreement = agreement.model_copy(update=measured)
        write_agreement(agreement, target)
    except BaseException:
        shutil.rmtree(target)
        raise
    return Export(target, agreement)


def _write_openvino(bundle: Bundle, folder: Path) -> None:
    channels = get_output_layout(bundle).channels
    for member in bundle.members:
        model = openvino.convert(
            load_network(bundle, member), bundle.spec, channels
        )
        openvino.write_model(model, folder / f"{member.stem}.xml")


def _measure_agreement(
    bundle: Bundle, comparison: _Comparison, listeners: Sequence[Listener]
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
