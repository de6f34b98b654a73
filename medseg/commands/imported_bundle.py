"""The bundle that becomes of another software's model, whatever software that was."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg._support.files import atomic_folder, write_atomically
from medseg._support.folders import refuse_file
from medseg.bundle.bundle import BUNDLE_FILE, MODELS
from medseg.bundle.hashes import hash_file
from medseg.bundle.safe_weights import write_safe_copies
from medseg.bundle.spec import BundleSpec, OriginSpec, TrainedSpec
from medseg.bundle.spec_files import write_bundle, write_trained
from medseg.bundle.weights import Weights, save_tensors
from medseg.errors import OutputError
from medseg.events import Listener, Notice, Progress, notify
from medseg.interop.monai_bundle import Parts, write_monai_bundle
from medseg.layouts.dataset_json import clean_text
from medseg.networks.definition import define_network
from medseg.networks.inferers import SLICE_AXIS, get_window_arguments
from medseg.training.model_card import imported_model_card

_TASK = "importing folds"
_MOST_SUMMARY = 200

Members = Mapping[str, Callable[[], Weights]]
"""Weight file → what reads its tensors, by the names of the bundle's network."""


@dataclass(frozen=True, slots=True)
class Import:
    """A model that became a bundle.

    Attributes:
        folder: The bundle.
        spec: What its ``bundle.json`` says.
        origin: Where its weights come from.
        members: How many networks it has.
        remarks: What a person should know.
    """

    folder: Path
    spec: BundleSpec
    origin: OriginSpec
    members: int
    remarks: tuple[str, ...] = ()


def refuse_used_folder(target: Path) -> None:
    """Refuse to write where something is.

    Raises:
        OutputError: If there is a file, or a folder that is not empty.
    """
    refuse_file(target)
    if target.is_dir() and any(target.iterdir()):
        raise OutputError("is not empty; name a new folder", source=target)


def describe_origin(
    software: str,
    model: str,
    dataset: str,
    files: Mapping[str, Path],
    licence: str = "",
) -> OriginSpec:
    """State where a model comes from.

    Args:
        software: What trained it.
        model: How that software calls it.
        dataset: How that software calls the data; ``unknown`` where it says nothing.
        files: What was read of it: name → file.
        licence: Of the weights, as far as anybody stated it.
    """
    content: dict[str, Any] = {
        "software": to_line(software),
        "model": to_line(model) or "unknown",
        "dataset": to_line(dataset) or "unknown",
        "files": {
            to_line(name): hash_file(file) for name, file in files.items()
        },
        "imported_with": f"medseg {importlib.metadata.version('medseg')}",
    }
    if licence:
        content["licence"] = to_line(licence)
    return OriginSpec.model_validate(content)


def to_line(text: str) -> str:
    """Return text as one line without control characters, cut to a fair length."""
    return "".join(filter(str.isprintable, clean_text(text)))


def summarise_origin(origin: OriginSpec) -> str:
    """Return in one line where weights come from."""
    text = (
        f"{origin.software} {origin.model} of {origin.dataset}, {origin.short_hash}, licence "
        f"{origin.licence}"
    )
    return text[:_MOST_SUMMARY]


def write_imported(
    target: Path,
    spec: BundleSpec,
    origin: OriginSpec,
    members: Members,
    remarks: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
) -> Import:
    """Write a bundle whole, or nothing of it.

    Args:
        target: A new or empty folder.
        spec: The bundle.
        origin: Where its weights come from.
        members: Its weights, read one file after the other.
        remarks: What a person should know.
        listeners: Told of progress, and of the remarks.

    Raises:
        CheckpointError: As reading the weights does.
        OutputError: If the folder cannot be written.
    """
    with atomic_folder(target) as folder:
        for number, (name, read) in enumerate(members.items()):
            notify(listeners, Progress(_TASK, number, len(members)))
            save_tensors(folder / MODELS / name, read())
        notify(listeners, Progress(_TASK, len(members), len(members)))
        _complete(folder, spec, origin, list(members), remarks)
    for remark in remarks:
        notify(listeners, Notice(remark))
    return Import(target, spec, origin, len(members), tuple(remarks))


def _complete(
    folder: Path,
    spec: BundleSpec,
    origin: OriginSpec,
    members: list[str],
    remarks: Sequence[str],
) -> None:
    """Complete a bundle whose weights are there."""
    models = folder / MODELS
    hashes = write_safe_copies(models / member for member in members)
    trained = TrainedSpec(members=tuple(members), files=hashes, origin=origin)
    write_bundle(spec, folder / BUNDLE_FILE)
    write_trained(trained, folder)
    parts = Parts(
        define_network(spec, supervised=False),
        get_window_arguments(spec),
        SLICE_AXIS,
    )
    write_monai_bundle(folder, spec, parts, {}, members)
    card = imported_model_card(spec, origin, remarks)
    write_atomically(folder / "docs" / "README.md", card)
