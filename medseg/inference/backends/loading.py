"""Which backend computes a bundle's networks, and the networks as it computes them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from medseg.bundle.bundle import Bundle
from medseg.errors import MedsegError
from medseg.inference.backends import openvino
from medseg.inference.backends.exported import Exported, find_exported
from medseg.inference.backends.member import Member
from medseg.inference.backends.openvino import OpenVinoMember
from medseg.inference.backends.pytorch import TorchMember
from medseg.networks.loading import Answer, answer_of, load_network

BACKENDS = ("auto", "torch", "openvino")

_log = logging.getLogger(__name__)


def load_members(
    bundle: Bundle,
    files: Sequence[Path],
    backend: str,
    device: torch.device,
    precision: torch.dtype,
) -> tuple[str, list[Member], Answer]:
    """Return the backend chosen, networks of a bundle as it computes them, and what they answer.

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
    answer = answer_of(bundle)
    if isinstance(exported, Exported):
        models = [openvino.read_model(exported.models[bundle.members.index(f)]) for f in files]
        return backend, [OpenVinoMember(model, precision) for model in models], answer
    networks = [load_network(bundle, file) for file in files]
    if backend == "openvino":
        spec = bundle.spec
        converted = [openvino.convert(network, spec, answer.channels) for network in networks]
        return backend, [OpenVinoMember(one, precision) for one in converted], answer
    dims = bundle.spec.network.dims
    members: list[Member] = [TorchMember(network, dims, device, precision) for network in networks]
    return backend, members, answer


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
