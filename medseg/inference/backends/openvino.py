"""A network computed by OpenVINO, on a CPU."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import logging
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg._support.optional_packages import hidden
from medseg.bundle.bundle import Bundle
from medseg.bundle.spec import BundleSpec
from medseg.errors import (
    CheckpointError,
    MedsegError,
    MissingExtraError,
    OutputError,
)
from medseg.inference.backends.exported import (
    ExportedNetworks,
    StaleExportError,
    find_exported,
)
from medseg.networks.levels import FinestLevel
from medseg.networks.loading import get_output_layout, load_network

TELEMETRY = "openvino_telemetry"
"""The package by which OpenVINO and NNCF report what they are used for."""

INPUT, OUTPUT = "image", "scores"
"""What a network's ends are called in exported files."""

_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}

_log = logging.getLogger(__name__)


def is_installed() -> bool:
    """Tell whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def require() -> Any:
    """Return the package.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        # To import it is reported to its makers, through the internet, where this package is there.
        with hidden(TELEMETRY):
            return importlib.import_module("openvino")
    except ImportError as error:
        raise MissingExtraError(
            "the backend openvino is not installed: pip install 'medseg[openvino]'"
        ) from error


class OpenVinoBackend:
    """Computes networks by OpenVINO, on a CPU."""

    def load(
        self,
        bundle: Bundle,
        files: Sequence[Path],
        device: torch.device,
        precision: torch.dtype,
    ) -> list[OpenVinoMember]:
        """Load networks of a trained bundle: its current export, else converted in memory.

        Args:
            bundle: A trained bundle.
            files: The weights to use, of its members.
            device: A CPU.
            precision: float32, or bfloat16 where the processor computes in it.

        Raises:
            CheckpointError: If weights are absent, damaged, or of another network.
            MissingExtraError: If OpenVINO is not installed.
            MedsegError: If the device is not a CPU, the processor cannot compute in this
                precision, or OpenVINO cannot compute the network.
        """
        if device.type != "cpu":
            raise MedsegError(
                f"the backend openvino computes on a CPU, not on {device}; use --device cpu"
            )
        exported = _find_current_export(bundle)
        if exported is not None:
            return load_exported(exported, bundle, files, precision)
        channels = get_output_layout(bundle).channels
        networks = [load_network(bundle, file) for file in files]
        models = [
            convert(network, bundle.spec, channels) for network in networks
        ]
        return [OpenVinoMember(model, precision) for model in models]


def find_close_export(
    bundle: Bundle, device: torch.device, precision: torch.dtype
) -> ExportedNetworks | None:
    """Return the exported networks that may be used although nobody asked for OpenVINO.

    Args:
        bundle: A bundle, trained or not.
        device: Where to compute.
        precision: Of the arithmetic.

    Raises:
        CheckpointError: If the bundle's weights cannot be read.
    """
    if device.type != "cpu" or precision != torch.float32 or not is_installed():
        return None
    exported = _find_current_export(bundle)
    if exported is None or not exported.agreement.is_close:
        return None
    return exported


def load_exported(
    exported: ExportedNetworks,
    bundle: Bundle,
    files: Sequence[Path],
    precision: torch.dtype,
) -> list[OpenVinoMember]:
    """Load the exported networks of some of a bundle's members.

    Args:
        exported: The bundle's networks.
        bundle: The bundle.
        files: The weights whose networks to use, of its members.
        precision: float32, or bfloat16 where the processor computes in it.

    Raises:
        CheckpointError: If a file is damaged.
        MedsegError: If the processor cannot compute in this precision.
    """
    members = []
    for file in files:
        model = read_model(exported.models[bundle.members.index(file)])
        members.append(OpenVinoMember(model, precision))
    return members


def _find_current_export(bundle: Bundle) -> ExportedNetworks | None:
    """Return the export of the weights a bundle has now; say so once if there is a stale one."""
    if not bundle.is_trained:
        return None
    try:
        return find_exported(bundle)
    except StaleExportError as error:
        _log.warning(
            "%s; it is not used. Export again: medseg export BUNDLE --to openvino",
            error.message,
        )
        return None


class CompiledMember:
    """A network compiled for this processor. May be called by several threads.

    Args:
        compiled: By OpenVINO.
        precision: What people are told of its arithmetic.
    """

    def __init__(self, compiled: Any, precision: torch.dtype) -> None:
        self.precision = precision
        self._compiled = compiled
        self._of_this_thread = threading.local()

    def arithmetic(self) -> contextlib.AbstractContextManager[object]:
        """Return a context that does nothing: the precision is compiled in."""
        return contextlib.nullcontext()

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, channels, *size)`` to scores ``(batch, classes, *size)``."""
        return torch.cat(
            [self._compute_scores(window) for window in torch.split(windows, 1)]
        )

    def _compute_scores(self, window: torch.Tensor) -> torch.Tensor:
        mine = self._of_this_thread
        if not hasattr(mine, "request"):
            mine.request = self._compiled.create_infer_request()
        request = mine.request
        request.infer([window.contiguous().numpy()], share_inputs=True)
        # A copy: the next window's scores are written to the same place.
        return torch.from_numpy(request.get_output_tensor(0).data.copy())


class OpenVinoMember(CompiledMember):
    """A network that is compiled for this processor.

    Args:
        model: From ``convert`` or ``read_model``.
        precision: float32, or bfloat16 where the processor computes in it.

    Raises:
        MedsegError: If the processor cannot compute in this precision.
    """

    def __init__(self, model: Any, precision: torch.dtype) -> None:
        core = require().Core()
        if not _can_compute_in(precision, core):
            raise MedsegError(
                f"OpenVINO cannot compute in {precision} on this processor; choose precision "
                "fp32, or backend torch"
            )
        compiled = core.compile_model(model, "CPU", get_settings(precision))
        super().__init__(compiled, precision)


def get_settings(precision: torch.dtype) -> dict[str, Any]:
    """Return what OpenVINO is told when it compiles: in what to compute, by how many threads."""
    return {
        # Unless told, OpenVINO computes in bfloat16 wherever the processor can.
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }


def get_version() -> str:
    """Return the version of OpenVINO, of whatever build.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        # Nightly builds, and those of other package managers, are registered by other names.
        return str(require().__version__)


def _can_compute_in(precision: torch.dtype, core: Any) -> bool:
    if precision == torch.bfloat16:
        return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return precision in _HINTS


def convert(network: nn.Module, spec: BundleSpec, channels: int) -> Any:
    """Return a network as OpenVINO's model, for one window at a time.

    Args:
        network: In evaluation mode.
        spec: Its bundle.
        channels: What it answers for each voxel.

    Raises:
        MissingExtraError: If OpenVINO is not installed.
        MedsegError: If OpenVINO does not know how to compute the network.
    """
    require()
    frontend = importlib.import_module("openvino.frontend").FrontEndManager()
    decoding = importlib.import_module("openvino.frontend.pytorch.ts_decoder")
    shape = [1, spec.input_channels, *spec.training.patch]
    try:
        # Not by openvino.convert_model, which reports each use to its makers over the network.
        decoder = decoding.TorchScriptPythonDecoder(_trace(network, shape))
        pytorch = frontend.load_by_framework("pytorch")
        model = pytorch.convert(pytorch.load(decoder))
        model.reshape(shape)
    except RuntimeError as error:
        raise MedsegError(
            "OpenVINO cannot compute this network; use backend torch",
            detail=str(error).strip().splitlines()[-1],
        ) from error
    model.inputs[0].get_tensor().set_names({INPUT})
    model.outputs[0].get_tensor().set_names({OUTPUT})
    check_shapes(model, spec, channels)
    return model


def check_shapes(model: Any, spec: BundleSpec, channels: int) -> None:
    """Make sure that a model takes a bundle's windows and returns their scores.

    Raises:
        MedsegError: If it does not.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise MedsegError(
            "OpenVINO's model has several inputs or outputs; use backend torch"
        )
    taken = _get_shape(model.inputs[0])
    windows = [1, spec.input_channels, *spec.training.patch]
    returned = _get_shape(model.outputs[0])
    expected = [1, channels, *spec.training.patch]
    if taken != windows or returned != expected:
        raise MedsegError(
            f"OpenVINO makes scores of shape {returned} of windows of shape {taken}, not "
            f"{expected} of {windows}; use backend torch"
        )


def _get_shape(port: Any) -> list[int]:
    """Return a port's shape; empty where it is left open."""
    shape = port.get_partial_shape()
    return list(shape.to_shape()) if shape.is_static else []


def _trace(network: nn.Module, shape: Sequence[int]) -> Any:
    with warnings.catch_warnings(), torch.inference_mode():
        # Of sizes taken for constants, which they are here; and that tracing is no longer new.
        warnings.simplefilter("ignore")
        image = torch.zeros(*shape)
        return torch.jit.trace(FinestLevel(network), image, check_trace=False)  # type: ignore[no-untyped-call]


def write_model(model: Any, file: Path) -> None:
    """Write a model as ``file`` (``.xml``) and its weights beside it (``.bin``), in float32.

    Raises:
        OutputError: If it cannot be written.
    """
    try:
        require().save_model(model, str(file), compress_to_fp16=False)
    except RuntimeError as error:
        raise OutputError(
            "the exported network cannot be written; is the disk full?",
            source=file,
            detail=str(error),
        ) from error


def read_model(file: Path) -> Any:
    """Read what ``write_model`` wrote.

    Raises:
        MissingExtraError: If OpenVINO is not installed.
        CheckpointError: If the file is damaged.
    """
    try:
        return require().Core().read_model(str(file))
    except RuntimeError as error:
        raise CheckpointError(
            "OpenVINO cannot read the exported network; export the bundle again",
            source=file,
            detail=str(error),
        ) from error
