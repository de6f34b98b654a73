"""``medseg export``: a trained bundle for other software, or for a faster backend."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from medseg._support.files import atomic_folder
from medseg.bundle.bundle import (
    BUNDLE_FILE,
    MODELS,
    REFINER_FILE,
    TRAINED_FILE,
    Bundle,
    format_spec,
    load_bundle,
)
from medseg.bundle.hashes import hash_file, hash_network
from medseg.bundle.spec import AgreementSpec, BundleSpec
from medseg.datasets.integrity import read_scan
from medseg.datasets.scans import find_scans
from medseg.errors import CheckpointError, MedsegError, OutputError
from medseg.events import Listener, Progress, notify
from medseg.inference.backends import openvino
from medseg.inference.backends.exported import OPENVINO, write_agreement
from medseg.inference.segmenter import Segmenter
from medseg.interop.monai_bundle import Parts, write_monai_bundle
from medseg.interop.onnx import require_onnx, write_onnx
from medseg.networks.definition import define_network
from medseg.networks.inferers import SLICE_AXIS, get_window_arguments
from medseg.networks.levels import FinestLevel
from medseg.networks.loading import get_output_layout, load_network
from medseg.networks.refiner import define_refined_network
from medseg.testing import make_phantom
from medseg.volume import Volume

KINDS = ("monai", "onnx", "openvino")

_PHANTOMS = 3
_BESIDES = ("configs", "docs", "metrics.json", "LICENSE")
"""What a copy of a trained bundle has besides its spec and weights."""


@dataclass(frozen=True, slots=True)
class Export:
    """What was exported.

    Attributes:
        folder: Where it is.
        agreement: How far its label maps are those of PyTorch, where that was measured.
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
        bundle: A trained bundle.
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
    """
    if to not in KINDS:
        raise MedsegError(f"--to takes {', '.join(KINDS)}; got '{to}'")
    if scans is not None and to != "openvino":
        raise MedsegError("scans are compared for openvino only; leave --scans out")
    loaded = load_bundle(bundle)
    if not loaded.is_trained:
        raise CheckpointError(
            f"{loaded.folder} has no weights; train it first: medseg train BUNDLE"
        )
    in_place = out is None or Path(out).resolve() == loaded.folder
    if to == "openvino":
        return _to_openvino(loaded, None if in_place else Path(str(out)), scans, listeners)
    if out is None or in_place:
        raise OutputError(f"--to {to} needs a folder to write to that is not the bundle's own")
    _refuse_full(Path(out))
    with atomic_folder(Path(out)) as folder:
        _write_monai(loaded, folder) if to == "monai" else _write_onnx(loaded, folder)
    return Export(Path(out))


def _refuse_full(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(f"{out} is not empty; name a new folder")


def _write_monai(bundle: Bundle, folder: Path) -> None:
    """Write the bundle as stock MONAI wants it: configs, weights and card."""
    spec = bundle.spec
    for member in bundle.members:
        load_network(bundle, member)  # weights of this network, and nothing else
    _copy_weights(bundle, folder)
    refined = bundle.trained.refinement
    applied = refined is not None and refined.applied
    network = define_refined_network(spec) if applied else define_network(spec, supervised=False)
    parts = Parts(network, get_window_arguments(spec), SLICE_AXIS)
    write_monai_bundle(folder, bundle.decided, parts, _scores(bundle), bundle.trained.members)
    _copy(bundle.folder, folder, ("docs", "LICENSE"))


def _copy_weights(bundle: Bundle, folder: Path) -> None:
    (folder / MODELS).mkdir()
    for member in bundle.members:
        shutil.copyfile(member, folder / MODELS / member.name)
    single = folder / MODELS / bundle.weights.name
    if not single.exists():  # for readers that know one network only
        shutil.copyfile(bundle.members[0], single)


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, symlinks=True)
        elif (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _scores(bundle: Bundle) -> dict[str, dict[str, float]]:
    """Return the scores of a bundle's training, for its metadata; empty if it names none."""
    file = bundle.folder / "metrics.json"
    if not file.is_file():
        return {}
    try:
        means = {
            name: float(by_label["mean"])
            for name, by_label in json.loads(file.read_text(encoding="utf-8"))["scores"].items()
            if by_label["mean"] is not None
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); remove or restore it") from error
    return {name: {"mean": mean} for name, mean in means.items()}


def _write_onnx(bundle: Bundle, folder: Path) -> None:
    require_onnx()
    spec = bundle.spec
    shape = (len(spec.channels), *spec.training.patch)
    facts = {"medseg.bundle": format_spec(spec)}
    for member in bundle.members:
        network = FinestLevel(
            load_network(bundle, member), get_output_layout(bundle).labelled
        ).eval()
        write_onnx(network, shape, folder / f"{member.stem}.onnx", facts)


def _to_openvino(
    bundle: Bundle,
    out: Path | None,
    scans: str | Path | None,
    listeners: Sequence[Listener],
) -> Export:
    openvino.require()
    volumes = _Given(bundle.spec, Path(scans)) if scans is not None else _MadeUp(bundle.spec)
    if out is None:
        return _convert(bundle, volumes, listeners)
    _refuse_full(out)
    with atomic_folder(out) as folder:
        (folder / BUNDLE_FILE).write_text(format_spec(bundle.spec), encoding="utf-8")
        _copy_weights(bundle, folder)
        _copy(bundle.folder / MODELS, folder / MODELS, (TRAINED_FILE.name, REFINER_FILE.name))
        _copy(bundle.folder, folder, _BESIDES)
        made = _convert(Bundle(bundle.spec, folder), volumes, listeners)
    return Export(out, made.agreement)


class _Given:
    """The scans to compare on that a person gave."""

    made_up = False

    def __init__(self, spec: BundleSpec, path: Path) -> None:
        self._channels = len(spec.channels)
        self._found = find_scans(path, self._channels).scans

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Volume]:
        return (read_scan(scan, self._channels) for scan in self._found)


class _MadeUp:
    """Phantoms of one and a half windows along each axis."""

    made_up = True

    def __init__(self, spec: BundleSpec) -> None:
        self._spec = spec

    def __len__(self) -> int:
        return _PHANTOMS

    def __iter__(self) -> Iterator[Volume]:
        return (self._made(seed) for seed in range(_PHANTOMS))

    def _made(self, seed: int) -> Volume:
        spec = self._spec
        sizes = [mm or 1.5 for mm in spec.preprocessing.spacing_mm or (1.5, 1.5, 1.5)]
        patch = (*spec.training.patch, 16)[:3]
        spacing = max(sizes)
        i, j, k = (math.ceil(1.5 * n * mm / spacing) for n, mm in zip(patch, sizes, strict=True))
        seeds = range(seed * len(spec.channels), (seed + 1) * len(spec.channels))
        made = [make_phantom(each, (i, j, k), spacing)[0] for each in seeds]
        array = np.concatenate([one.array for one in made])
        if spec.preprocessing.input == "picture":
            array = array[..., k // 2 : k // 2 + 1]
        return Volume(np.asfortranarray(array), made[0].affine, source=made[0].source)


def _convert(bundle: Bundle, volumes: _Given | _MadeUp, listeners: Sequence[Listener]) -> Export:
    """Put a bundle's networks for OpenVINO into it, and measure how far they agree."""
    place = bundle.folder / OPENVINO
    with atomic_folder(place) as folder:
        for member in bundle.members:
            model = openvino.convert(
                load_network(bundle, member), bundle.spec, get_output_layout(bundle).channels
            )
            openvino.write_model(model, folder / f"{member.stem}.xml")
        found = AgreementSpec(
            network=hash_network(bundle),
            files={file.name: hash_file(file) for file in sorted(folder.iterdir())},
            made_with={name: version(name) for name in ("medseg", "torch", "openvino")},
        )
        # It knows of no agreement yet, so that nothing is used that was not measured.
        write_agreement(found, folder)
    try:
        found = found.model_copy(update=_compare(bundle, volumes, listeners))
        write_agreement(found, place)
    except BaseException:
        shutil.rmtree(place)
        raise
    return Export(place, found)


def _compare(
    bundle: Bundle, volumes: _Given | _MadeUp, listeners: Sequence[Listener]
) -> dict[str, int | bool]:
    """Segment volumes with both backends; count the voxels that differ."""
    task = "comparing label maps"
    one, other = (
        Segmenter(bundle, "cpu", backend=backend, precision="fp32")
        for backend in ("torch", "openvino")
    )
    voxels = labelled = differ = 0
    for done, volume in enumerate(volumes):
        notify(listeners, Progress(task, done, len(volumes)))
        wanted, got = one.segment(volume).labels, other.segment(volume).labels
        voxels += wanted.size
        labelled += int(((wanted > 0) | (got > 0)).sum())
        differ += int((wanted != got).sum())
    notify(listeners, Progress(task, len(volumes), len(volumes)))
    return {
        "scans": len(volumes),
        "made_up": volumes.made_up,
        "voxels": voxels,
        "labelled": labelled,
        "differ": differ,
    }
