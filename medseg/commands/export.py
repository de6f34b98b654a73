"""``medseg export``: a trained bundle for other software, or for a faster backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg._support.files import atomic_folder, write_atomically
from medseg.bundle.bundle import (
    ASSEMBLY_FILE,
    Assembly,
    Bundle,
    list_networks,
    load_bundle,
)
from medseg.bundle.spec import AgreementSpec, BundleSpec
from medseg.bundle.spec_files import format_assembly, format_spec
from medseg.commands.bundle_files import (
    copy_files,
    copy_weights,
    read_scores,
    require_empty,
    write_configs,
)
from medseg.commands.calibrate import calibrate_and_export
from medseg.commands.openvino_export import (
    choose_comparison,
    export_to_openvino,
)
from medseg.errors import CheckpointError, MedsegError, OutputError
from medseg.events import Listener, Notice, notify
from medseg.inference.backends import openvino
from medseg.inference.backends.at_speed import EXACT, find_decided_speed
from medseg.inference.backends.exported import OPENVINO
from medseg.interop.monai_bundle.departures import list_departures
from medseg.interop.onnx import require_onnx, write_onnx
from medseg.networks.levels import FinestLevel
from medseg.networks.loading import get_output_layout, load_network

KINDS = ("monai", "onnx", "openvino")

_EACH_ALONE = (
    "each bundle of the assembly is exported by itself: other software neither paints their labels "
    "into one map nor crops one by another"
)
_UNDECIDED = (
    "nothing says how fast a CPU may compute this network without losing Dice, so it is exported "
    "in fp32 alone; labelled cases decide it: --data LABELLED, or medseg calibrate BUNDLE first"
)


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
    data: str | Path | None = None,
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
        data: For ``openvino``, labelled cases that the bundle has not learned from: it is
            calibrated on them first, as by ``calibrate``, which decides how fast a CPU may
            compute the network. Unless given, that stays as it is.
        listeners: Told of progress.

    Returns:
        Where it is, and for ``openvino`` how far label maps agree.

    Raises:
        BundleError: If the bundle is wrong.
        CheckpointError: If its weights are absent, damaged, or of another network.
        MissingExtraError: If packages of the extra ``onnx`` or ``openvino`` are missing.
        OutputError: If ``out`` is not empty or cannot be written.
        ScanError: If a scan cannot be read.
        DatasetError: If ``data`` is not what ``calibrate`` takes.
        MedsegError: If there is no such kind, or the network cannot be converted.

    Examples:
        >>> import medseg
        >>> medseg.export("runs/liver", "liver_paper", to="paper")
        Traceback (most recent call last):
        ...
        medseg.errors.MedsegError: --to takes monai, onnx, openvino; got 'paper'
    """
    loaded = _load(bundle, to, scans, data)
    target = None if out is None else Path(out)
    if target is not None and target.resolve() == loaded.folder:
        target = None
    if data is not None:
        return _calibrate_and_export(
            loaded, target, scans, Path(data), listeners
        )
    if isinstance(loaded, Assembly):
        return _export_bundles(loaded, target, to, scans, listeners)
    if to == "openvino":
        _say_undecided(loaded, listeners)
        comparison = choose_comparison(loaded.spec, scans)
        made = export_to_openvino(loaded, target, comparison, listeners)
        return Export(*made)
    if target is None:
        raise OutputError(
            f"--to {to} needs a folder to write to, other than the bundle's own"
        )
    require_empty(target)
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
    require_empty(out)
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


def _load(
    bundle: str | Path,
    to: str,
    scans: str | Path | None,
    data: str | Path | None,
) -> Bundle:
    """Load a bundle that can be exported as asked."""
    if to not in KINDS:
        raise MedsegError(f"--to takes {', '.join(KINDS)}; got '{to}'")
    if data is not None and to != "openvino":
        raise MedsegError(
            "--data goes with --to openvino: labelled cases decide how fast a CPU may compute "
            "the network"
        )
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


def _calibrate_and_export(
    bundle: Bundle,
    out: Path | None,
    scans: str | Path | None,
    data: Path,
    listeners: Sequence[Listener],
) -> Export:
    """Calibrate a bundle, or a copy of it in ``out``, and export it for OpenVINO into itself."""
    openvino.require()
    # Now, and not when all is calibrated.
    comparison = choose_comparison(bundle.spec, scans)
    agreements = []

    def convert(calibrated: Bundle) -> Path:
        made, agreement = export_to_openvino(
            calibrated, None, comparison, listeners
        )
        agreements.append(agreement)
        return made

    calibration = calibrate_and_export(
        convert,
        bundle.folder,
        out,
        data=data,
        in_place=out is None,
        device="cpu",
        listeners=listeners,
    )
    folder = calibration.folder if out is not None else bundle.folder / OPENVINO
    return Export(folder, agreements[-1])


def _say_undecided(bundle: Bundle, listeners: Sequence[Listener]) -> None:
    """Say that the speed is not decided, and how it is, unless the bundle wants none."""
    if bundle.spec.inference.speed == EXACT:
        return
    if find_decided_speed(bundle) is None:
        notify(listeners, Notice(_UNDECIDED))


def _say_departures(spec: BundleSpec, listeners: Sequence[Listener]) -> None:
    for departure in list_departures(spec):
        notify(listeners, Notice(f"stock MONAI differs: {departure}"))


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
