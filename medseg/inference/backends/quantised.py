"""Networks in int8: made by post-training quantisation, kept in the bundle, compared by hash.

Post-training quantisation (NNCF, preset "mixed"): activations are measured on windows of scans.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg._support.optional_packages import hidden
from medseg.bundle.bundle import MODELS, Bundle
from medseg.bundle.hashes import hash_file
from medseg.errors import CheckpointError, MedsegError
from medseg.inference.backends import openvino
from medseg.networks.loading import get_output_layout, load_network
from medseg.volume import Array

QUANTISED = MODELS / "speed"
"""Where a bundle keeps its networks in int8."""


def is_installed() -> bool:
    """Tell whether NNCF is installed, which quantises, and OpenVINO, which computes."""
    has_nncf = importlib.util.find_spec("nncf") is not None
    return has_nncf and openvino.is_installed()


def get_quantised_file(bundle: Bundle, member: Path) -> Path:
    """Return where a member's network in int8 is, or will be."""
    return bundle.folder / QUANTISED / f"{member.stem}.int8.xml"


def write_quantised(bundle: Bundle, windows: Sequence[Array]) -> dict[str, str]:
    """Write each of a bundle's networks in int8 into it.

    Args:
        bundle: A trained bundle.
        windows: What its networks see of scans that they were trained on, float32
            ``(1, channels, *size)``.

    Returns:
        File → SHA-256.

    Raises:
        MedsegError: If OpenVINO cannot compute the network, or NNCF cannot quantise it.
    """
    folder = bundle.folder / QUANTISED
    folder.mkdir(parents=True, exist_ok=True)
    channels = get_output_layout(bundle).channels
    for member in bundle.members:
        network = load_network(bundle, member)
        model = openvino.convert(network, bundle.spec, channels)
        file = get_quantised_file(bundle, member)
        openvino.write_model(_quantise(model, windows), file)
    return {file.name: hash_file(file) for file in sorted(folder.iterdir())}


def has_files(bundle: Bundle, files: Mapping[str, str]) -> bool:
    """Tell whether a bundle has networks in int8.

    Args:
        bundle: The bundle.
        files: Name → SHA-256 of each of their files.
    """
    folder = bundle.folder / QUANTISED
    return all(_hash(folder / name) == files[name] for name in files)


def check_quantised(bundle: Bundle, member: Path) -> None:
    """Make sure that a member's network in int8 is what the bundle says.

    Raises:
        CheckpointError: If it is absent or was changed.
    """
    speed = bundle.trained.speed
    stated = {} if speed is None else speed.files
    file = get_quantised_file(bundle, member)
    for part in (file, file.with_suffix(".bin")):
        if stated.get(part.name) != _hash(part):
            raise CheckpointError(
                "a network in int8 is missing or was changed; restore the file, or segment "
                "with --speed exact",
                source=part,
            )


def read_quantised(bundle: Bundle, member: Path) -> Any:
    """Read a member's network in int8.

    Raises:
        CheckpointError: If it cannot be read.
        MedsegError: If it is of another shape than the bundle's.
    """
    model = openvino.read_model(get_quantised_file(bundle, member))
    openvino.check_shapes(
        model, bundle.spec, get_output_layout(bundle).channels
    )
    return model


def _hash(file: Path) -> str:
    """Return the hash of a file; empty, so that it is like no other, if it cannot be read."""
    try:
        return hash_file(file)
    except OSError:
        return ""


def _quantise(model: Any, windows: Sequence[Array]) -> Any:
    with _import_nncf() as nncf:
        try:
            return nncf.quantize(
                model,
                nncf.Dataset(list(windows)),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(windows),
            )
        except Exception as error:
            # Of NNCF's own kinds, which have no base in common.
            raise MedsegError(
                "NNCF cannot quantise the network",
                detail=f"{type(error).__name__}: {error}",
            ) from error


@contextlib.contextmanager
def _import_nncf() -> Iterator[Any]:
    """Give NNCF, told to be quiet: it draws bars, and logs to the terminal by itself."""
    with hidden(openvino.TELEMETRY), contextlib.redirect_stdout(io.StringIO()):
        nncf = importlib.import_module("nncf")
        # Not by nncf.set_log_level, which also changes handlers that others have added.
        logger = logging.getLogger("nncf")
        former = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield nncf
        finally:
            logger.setLevel(former)
