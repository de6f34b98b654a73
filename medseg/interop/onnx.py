"""Networks as ONNX files."""

from __future__ import annotations

import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from medseg._support.files import write_atomically
from medseg.errors import MedsegError, MissingExtraError

INPUT, OUTPUT = "image", "scores"
"""What the ends of an exported network are called."""


def require_onnx() -> None:
    """See that the packages are there.

    Raises:
        MissingExtraError: If not.
    """
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingExtraError(
                f"ONNX files need the package {package}: pip install 'medseg[onnx]'"
            ) from error


def write_onnx(
    network: nn.Module,
    shape: Sequence[int],
    file: Path,
    facts: Mapping[str, str],
) -> None:
    """Write a network as one ONNX file, weights inside; any number of windows at a time.

    Args:
        network: In evaluation mode; returns one tensor.
        shape: Of one window, ``(channels, *size)``.
        file: Where to.
        facts: For whoever opens the file: name → text.

    Raises:
        MissingExtraError: If a package is missing.
        MedsegError: If the network cannot be exported to ONNX.
        OutputError: If the file cannot be written.
    """
    require_onnx()
    onnx = importlib.import_module("onnx")
    try:
        with _silence_exporter():
            program = torch.onnx.export(
                network,
                (torch.zeros(2, *shape),),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: "batch"},),
                dynamo=True,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise MedsegError(
            "the network cannot be exported to ONNX", detail=lines[0]
        ) from error
    if program is None:
        raise MedsegError("the network cannot be exported to ONNX")
    model = program.model_proto
    for name, text in facts.items():
        model.metadata_props.add(key=name, value=text)
    # Stack traces of this machine, with its paths, stand at every node otherwise.
    for node in model.graph.node:
        node.ClearField("metadata_props")
    content = io.BytesIO()
    onnx.save_model(model, content)
    write_atomically(file, content.getvalue())


@contextmanager
def _silence_exporter() -> Iterator[None]:
    """Keep PyTorch from warning of its own future changes, and of torchvision."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
