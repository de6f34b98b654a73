"""Models that MONAI trained become bundles: Auto3DSeg's, and MONAI Bundles of others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from medseg._support.folders import explain_unreadable
from medseg.bundle.bundle import BUNDLE_FILE, parse_spec
from medseg.bundle.foreign_checkpoints import read_foreign_checkpoint
from medseg.bundle.spec import BundleSpec
from medseg.bundle.weights import Weights
from medseg.commands.imported_bundle import (
    Import,
    describe_origin,
    summarise_origin,
    write_imported,
)
from medseg.errors import MedsegError
from medseg.events import Listener, Notice, notify
from medseg.interop.auto3dseg import is_auto3dseg, read_auto3dseg
from medseg.interop.described_model import DescribedModel
from medseg.interop.monai_config.bundle import INFERENCE, read_monai_bundle
from medseg.interop.monai_config.files import find_config
from medseg.interop.state_dicts import Shapes, copy_weights, reorder_outputs
from medseg.networks.building import build_for_shapes, try_network
from medseg.planning.description import make_bundle_name

_MODEL = "model.pt"
_TEMPLATE = Path("model") / _MODEL
"""Where Auto3DSeg's template puts a model."""
_CHECKPOINTS = (".pt", ".pth")
_MOST_FOLDERS = 200
_SPARE = 2**31 - 1
"""A value that no label file holds."""


def find_monai_model(source: Path) -> DescribedModel | None:
    """Read a model of MONAI's; ``None`` where there is none.

    Args:
        source: A MONAI Bundle; a checkpoint of Auto3DSeg, its folder, or the one above.

    Raises:
        MedsegError: If it is a bundle of medseg's, or one that medseg cannot repeat.
        CheckpointError: If its weights are absent, damaged or forged.
    """
    if source.is_file() and source.suffix in _CHECKPOINTS:
        return read_auto3dseg(source, _name_after(source))
    if not source.is_dir():
        return None
    if (source / BUNDLE_FILE).is_file():
        raise MedsegError(
            "is a bundle of medseg's already; segment with it as it is",
            source=source,
        )
    if find_config(source, INFERENCE) is not None:
        return read_monai_bundle(source)
    for file in (source / _TEMPLATE, source / _MODEL):
        if file.is_file() and is_auto3dseg(read_foreign_checkpoint(file)):
            return read_auto3dseg(file, source.resolve().name)
    return _find_below(source)


def import_monai_model(
    model: DescribedModel,
    target: Path,
    licence: str,
    listeners: Sequence[Listener] = (),
) -> Import:
    """Make a bundle of a model of MONAI's.

    Args:
        model: As it was read.
        target: A new or empty folder.
        licence: Of its weights, as a person states it; what its files tell unless given.
        listeners: Told what was found, and of what a person should know.

    Raises:
        MedsegError: If medseg has no such network, or it does not fit the window.
        CheckpointError: If the weights are of another network.
    """
    named = " ".join(part for part in (model.name, model.version) if part)
    notify(listeners, Notice(f"found: {model.kind} {named}"))
    origin = describe_origin(
        model.software,
        named,
        model.dataset,
        model.sources,
        licence or model.licence,
    )
    content = {
        "name": make_bundle_name(model.name),
        **model.content,
        "licence": origin.licence,
        "origin": summarise_origin(origin),
    }
    spec = parse_spec(content, model.file)
    try_network(spec)
    members = {_MODEL: partial(_convert, model, spec)}
    return write_imported(
        target, spec, origin, members, model.remarks, listeners
    )


def _convert(model: DescribedModel, spec: BundleSpec) -> Weights:
    """Return the weights with the output channels in the bundle's order."""
    shapes = _list_shapes(spec)
    weights = copy_weights(model.weights, shapes, model.file)
    if list(model.order) == sorted(model.order):
        return weights
    wider = _list_shapes(_add_channel(spec))
    return reorder_outputs(weights, shapes, wider, model.order)


def _list_shapes(spec: BundleSpec) -> Shapes:
    return build_for_shapes(spec).state_dict()


def _add_channel(spec: BundleSpec) -> BundleSpec:
    """Return a bundle whose network has one output channel more."""
    content = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    added = "one more"
    label = {"index": len(spec.labels) + 1, "name": added, "value": _SPARE}
    content["labels"].append(label)
    content["regions"].append({"name": added, "labels": [added]})
    return BundleSpec.model_validate_json(json.dumps(content))


def _name_after(file: Path) -> str:
    """Return how a checkpoint is called: as its folder where its own name says nothing."""
    if file.name != _MODEL:
        return file.stem
    folder = file.resolve().parent
    is_part = folder.name == _TEMPLATE.parent.name
    return folder.parent.name if is_part else folder.name


def _find_below(source: Path) -> DescribedModel | None:
    """Read the one Auto3DSeg model in a folder of several algorithms."""
    if explain_unreadable(source):
        return None
    inner = sorted(islice(source.iterdir(), _MOST_FOLDERS))
    open_folders = [
        path for path in inner if not explain_unreadable(path, by_name=True)
    ]
    files = [path / _TEMPLATE for path in open_folders if path.is_dir()]
    found = [file for file in files if file.is_file()]
    if not found:
        return None
    names = [file.parent.parent.name for file in found]
    if len(found) > 1:
        raise MedsegError(
            f"{len(found)} models of Auto3DSeg are here; give the folder of one of them",
            source=source,
            detail=", ".join(names[:20]),
        )
    return read_auto3dseg(found[0], names[0])
