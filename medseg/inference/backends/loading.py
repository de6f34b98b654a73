"""Which backend computes a bundle's networks, and the networks as it computes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from medseg._support.registry import Registry
from medseg.bundle.bundle import Bundle
from medseg.bundle.spec import SpeedSetting
from medseg.errors import MedsegError
from medseg.inference.backends.at_speed import load_at_speed
from medseg.inference.backends.contract import Backend, Member
from medseg.inference.backends.openvino import (
    OpenVinoBackend,
    find_close_export,
    load_exported,
)
from medseg.inference.backends.pytorch import TorchBackend

AUTO = "auto"


def check_backend(backend: Backend) -> None:
    """Make sure that an entry point names a backend.

    Raises:
        TypeError: If it does not.
    """
    if isinstance(backend, type) or not callable(
        getattr(backend, "load", None)
    ):
        raise TypeError(
            "a backend is an object with a method 'load', not a class"
        )


BACKENDS: Registry[Backend] = Registry(
    "medseg.backends",
    "backend",
    {"torch": TorchBackend(), "openvino": OpenVinoBackend()},
    check=check_backend,
)
"""What ``--backend`` takes besides ``auto``."""


def load_members(
    bundle: Bundle,
    files: Sequence[Path],
    backend: str,
    device: torch.device,
    precision: torch.dtype,
    setting: SpeedSetting | None = None,
) -> tuple[str, Sequence[Member]]:
    """Load a bundle's networks with the backend asked for.

    ``auto`` is OpenVINO where it is installed, the device is a CPU, the precision float32, and
    the bundle was exported from the weights it has now with label maps that agree well enough
    (``medseg export --to openvino`` measures it); else PyTorch. OpenVINO that was asked for
    converts the networks in memory where the bundle has no current export.

    Args:
        bundle: A trained bundle.
        files: The weights to use, of its members.
        backend: ``auto``, ``torch``, ``openvino``, or the name of a backend that another package
            registers.
        device: Where to compute.
        precision: Of the arithmetic.
        setting: What held-out cases decided, where nobody asked for a backend or a precision.

    Returns:
        The backend's name, and the networks as it computes them, in the order of ``files``.

    Raises:
        CheckpointError: If weights are absent, damaged, or of another network.
        MissingExtraError: If the backend needs a package that is not installed.
        MedsegError: If there is no such backend, or it does not compute there, or so.
    """
    if setting is not None:
        members = load_at_speed(bundle, files, setting)
        if members is not None:
            return "openvino", members
    if backend == AUTO:
        exported = find_close_export(bundle, device, precision)
        if exported is not None:
            return "openvino", load_exported(exported, bundle, files, precision)
        backend = "torch"
    elif backend not in BACKENDS.names:
        choices = ", ".join((AUTO, *BACKENDS.names))
        raise MedsegError(
            f"there is no backend '{backend}'; choose one of {choices}"
        )
    return backend, BACKENDS.get(backend).load(bundle, files, device, precision)
