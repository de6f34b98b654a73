"""Which backend computes a bundle's networks, and the networks as it computes them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from medseg.engine.backends import openvino
from medseg.engine.backends.member import Member
from medseg.engine.backends.openvino import OpenVinoMember
from medseg.engine.backends.pytorch import TorchMember
from medseg.engine.networks.unet import build_network
from medseg.tools.bundle import Bundle
from medseg.tools.checkpoint import load_weights
from medseg.tools.exported import Exported, find_exported
from medseg.words.errors import CheckpointError, MedsegError

BACKENDS = ("auto", "torch", "openvino")

_log = logging.getLogger(__name__)


def load_members(
    bundle: Bundle,
    files: Sequence[Path],
    backend: str,
    device: torch.device,
    precision: torch.dtype,
) -> tuple[str, list[Member]]:
    """Return the backend chosen, and networks of a bundle as it computes them.

    ``auto`` is OpenVINO where it is installed, the device is a CPU, the precision float32, and
    the bundle was exported from the weights it has now with label maps that agree well enough
    (``medseg export --to openvino`` measures it); else PyTorch. OpenVINO that was asked for
    converts the networks in memory where the bundle has no current export.

    Args:
        bundle: A trained bundle.
        files: The weights to use, of its members.
        backend: ``auto``, ``torch`` or ``openvino``.
        device: Where to compute.
        precision: Of the arithmetic.

    Raises:
        CheckpointError: If weights are absent, damaged, or of another network.
        MissingExtraError: If OpenVINO was asked for and is not installed.
        MedsegError: If there is no such backend, or it does not compute there, or so.
    """
    if backend not in BACKENDS:
        raise MedsegError(f"there is no backend '{backend}'; choose {', '.join(BACKENDS)}")
    if backend == "openvino" and device.type != "cpu":
        raise MedsegError(f"backend openvino computes on a CPU, not on {device}; use --device cpu")
    exported = _usable(bundle, backend, device, precision)
    if backend == "auto":
        backend = "openvino" if isinstance(exported, Exported) else "torch"
    if backend == "torch":
        dims = bundle.spec.network.dims
        return backend, [
            TorchMember(load_network(bundle, file), dims, device, precision) for file in files
        ]
    if isinstance(exported, Exported):
        models = [openvino.read_model(exported.models[bundle.members.index(f)]) for f in files]
    else:
        models = [openvino.convert(load_network(bundle, file), bundle.spec) for file in files]
    return backend, [OpenVinoMember(model, precision) for model in models]


def _usable(
    bundle: Bundle, backend: str, device: torch.device, precision: torch.dtype
) -> Exported | None:
    """Return the exported networks that this backend may use."""
    if backend == "torch" or not bundle.is_trained:
        return None
    if backend == "auto" and (device.type != "cpu" or precision != torch.float32):
        return None
    if backend == "auto" and not openvino.is_installed():
        return None
    exported = find_exported(bundle)
    if isinstance(exported, str):
        if exported:
            _log.warning("%s; medseg export BUNDLE --to openvino makes it anew", exported)
        return None
    return exported if backend == "openvino" or exported.found.is_close else None


def load_network(bundle: Bundle, file: Path) -> torch.nn.Module:
    """Return a bundle's network with the weights of a file, in evaluation mode.

    Raises:
        CheckpointError: If they are absent, damaged, or of another network.
    """
    if not file.is_file():
        raise CheckpointError(
            f"{bundle.folder} has no weights ({file.relative_to(bundle.folder)}); "
            "train it first: medseg train BUNDLE"
        )
    network = build_network(bundle.spec, supervised=False)
    try:
        network.load_state_dict(load_weights(file))
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights in {file} are of another network than bundle.json "
            f"describes: {str(error).splitlines()[-1].strip()}"
        ) from error
    return network.eval()
