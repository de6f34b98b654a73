"""A network computed by OpenVINO, on a CPU."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg.bundle.spec import BundleSpec
from medseg.errors import CheckpointError, MedsegError, MissingExtraError, OutputError
from medseg.networks.unet import Finest

INPUT, OUTPUT = "image", "scores"
"""What a network's ends are called in exported files."""

_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


def is_installed() -> bool:
    """Tell whether OpenVINO is there."""
    return importlib.util.find_spec("openvino") is not None


def require() -> Any:
    """Return the package.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise MissingExtraError(
            "the backend openvino is not installed: pip install 'medseg[openvino]'"
        ) from error


class OpenVinoMember:
    """A network compiled for this processor. May be called by several threads.

    Args:
        model: From ``convert`` or ``read_model``.
        precision: float32, or bfloat16 where the processor computes in it.

    Raises:
        MedsegError: If the processor cannot compute in this precision.
    """

    def __init__(self, model: Any, precision: torch.dtype) -> None:
        self.precision = precision
        core = require().Core()
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision not in _HINTS or (precision == torch.bfloat16 and "BF16" not in able):
            raise MedsegError(
                f"this processor does not compute in {precision} with openvino; choose precision "
                "fp32, or backend torch"
            )
        settings = {
            # Unless told, OpenVINO computes in bfloat16 wherever the processor can.
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        self._compiled = core.compile_model(model, "CPU", settings)
        self._mine = threading.local()

    def arithmetic(self) -> contextlib.AbstractContextManager[object]:
        """Return a context that does nothing: the precision is compiled in."""
        return contextlib.nullcontext()

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, channels, *size)`` to scores ``(batch, classes, *size)``."""
        return torch.cat([self._scores(window) for window in torch.split(windows, 1)])

    def _scores(self, window: torch.Tensor) -> torch.Tensor:
        if not hasattr(self._mine, "request"):
            self._mine.request = self._compiled.create_infer_request()
        request = self._mine.request
        request.infer([window.contiguous().numpy()], share_inputs=True)
        # A copy: the next window's scores are written to the same place.
        return torch.from_numpy(request.get_output_tensor(0).data.copy())


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
    shape = [1, len(spec.channels), *spec.training.patch]
    try:
        # Not by openvino.convert_model, which reports each use to its makers over the network.
        decoder = decoding.TorchScriptPythonDecoder(_traced(network, shape))
        pytorch = frontend.load_by_framework("pytorch")
        model = pytorch.convert(pytorch.load(decoder))
        model.reshape(shape)
    except RuntimeError as error:
        raise MedsegError(
            f"OpenVINO cannot compute this network: {str(error).strip().splitlines()[-1]}; "
            "use backend torch"
        ) from error
    model.inputs[0].get_tensor().set_names({INPUT})
    model.outputs[0].get_tensor().set_names({OUTPUT})
    if list(model.outputs[0].get_shape()) != [1, channels, *spec.training.patch]:
        raise MedsegError("OpenVINO returns scores of another shape; use backend torch")
    return model


def _traced(network: nn.Module, shape: Sequence[int]) -> Any:
    with warnings.catch_warnings(), torch.inference_mode():
        # Of sizes taken for constants, which they are here; and that tracing is no longer new.
        warnings.simplefilter("ignore")
        image = torch.zeros(*shape)
        return torch.jit.trace(Finest(network), image, check_trace=False)  # type: ignore[no-untyped-call]


def write_model(model: Any, file: Path) -> None:
    """Write a model as ``file`` (``.xml``) and its weights beside it (``.bin``), in float32.

    Raises:
        OutputError: If it cannot be written.
    """
    try:
        require().save_model(model, str(file), compress_to_fp16=False)
    except RuntimeError as error:
        raise OutputError(f"cannot write {file.name}: is the disk full?") from error


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
            f"{file.name} is no model that OpenVINO reads; export the bundle again"
        ) from error
