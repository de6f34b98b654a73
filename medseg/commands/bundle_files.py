"""The files of a trained bundle, copied and written anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg._support.files import write_atomically
from medseg._support.folders import refuse_file
from medseg.bundle.bundle import (
    BUNDLE_FILE,
    MODELS,
    REFINER_FILE,
    TRAINED_FILE,
    Bundle,
)
from medseg.bundle.spec_files import format_spec
from medseg.errors import CheckpointError, OutputError
from medseg.inference.backends.exported import OPENVINO
from medseg.inference.backends.quantised import QUANTISED
from medseg.interop.monai_bundle import Parts, write_monai_bundle
from medseg.networks.definition import define_network
from medseg.networks.inferers import SLICE_AXIS, get_window_arguments
from medseg.networks.refiner import define_refined_network

_BESIDE_WEIGHTS = ("configs", "docs", "metrics.json", "LICENSE")
"""What a copy of a trained bundle has besides its spec and weights."""


def copy_bundle(bundle: Bundle, folder: Path) -> None:
    """Copy what makes a trained bundle into an empty folder; checkpoints and caches stay behind."""
    write_atomically(folder / BUNDLE_FILE, format_spec(bundle.spec))
    copy_weights(bundle, folder)
    copy_files(
        bundle.folder / MODELS,
        folder / MODELS,
        (TRAINED_FILE.name, REFINER_FILE.name, *bundle.trained.files),
    )
    copy_files(bundle.folder, folder, (QUANTISED.as_posix(), *_BESIDE_WEIGHTS))


def copy_exported(bundle: Bundle, folder: Path) -> None:
    """Copy the networks that were exported from a bundle's weights, into a copy of it."""
    copy_files(bundle.folder, folder, (OPENVINO.as_posix(),))


def write_configs(
    bundle: Bundle, folder: Path, scores: Mapping[str, Mapping[str, float]]
) -> None:
    """Write the configs of MONAI for a trained bundle, as its training decided.

    Args:
        bundle: The bundle.
        folder: Where its weights are, or a copy of them.
        scores: ``metric → label → mean over held-out cases``, for the metadata.
    """
    spec = bundle.spec
    refinement = bundle.trained.refinement
    if refinement is not None and refinement.applied:
        network = define_refined_network(spec)
    else:
        network = define_network(spec, supervised=False)
    parts = Parts(network, get_window_arguments(spec), SLICE_AXIS)
    write_monai_bundle(
        folder, bundle.decided, parts, scores, bundle.trained.members
    )


def copy_weights(bundle: Bundle, folder: Path) -> None:
    """Copy the weights that readers of MONAI bundles know."""
    models = folder / MODELS
    models.mkdir()
    for member in bundle.members:
        shutil.copyfile(member, models / member.name)
    # For readers that know one network only.
    single = models / bundle.weights.name
    if not single.exists():
        shutil.copyfile(bundle.members[0], single)


def copy_files(source: Path, target: Path, names: Sequence[str]) -> None:
    """Copy those of some files and folders that are there."""
    for name in names:
        original, copy = source / name, target / name
        if original.is_dir():
            shutil.copytree(original, copy, symlinks=True)
        elif original.is_file():
            shutil.copyfile(original, copy)


def read_scores(bundle: Bundle) -> dict[str, dict[str, float]]:
    """Return the mean scores that a bundle's training run wrote, for the metadata."""
    file = bundle.folder / "metrics.json"
    if not file.is_file():
        return {}
    scores: dict[str, dict[str, float]] = {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        for name, by_label in content["scores"].items():
            if by_label["mean"] is not None:
                scores[name] = {"mean": float(by_label["mean"])}
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise CheckpointError(
            "the scores of the training run are damaged; remove or restore the file",
            source=file,
            detail=str(error),
        ) from error
    return scores


def require_empty(folder: Path) -> None:
    """Make sure that a folder is new or empty.

    Raises:
        OutputError: If it is not.
    """
    refuse_file(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError("is not empty; name a new folder", source=folder)
