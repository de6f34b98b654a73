"""``medseg import``: a model that other software trained becomes a bundle."""

from __future__ import annotations

import importlib.metadata
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medseg._support.files import atomic_folder, write_atomically
from medseg._support.folders import refuse_file
from medseg.bundle.bundle import (
    BUNDLE_FILE,
    MODELS,
    parse_spec,
    write_bundle,
    write_trained,
)
from medseg.bundle.hashes import hash_file
from medseg.bundle.overrides import parse_json
from medseg.bundle.safe_weights import write_safe_copies
from medseg.bundle.spec import BundleSpec, OriginSpec, TrainedSpec
from medseg.bundle.weights import Weights, save_tensors
from medseg.errors import CheckpointError, MedsegError, OutputError
from medseg.events import Listener, Notice, Progress, notify
from medseg.interop.monai_bundle import Parts, write_monai_bundle
from medseg.interop.nnunet.checkpoint import NnunetCheckpoint, read_checkpoint
from medseg.interop.nnunet.network import describe_as_unet
from medseg.interop.nnunet.plans import NnunetPlans, read_nnunet_plans
from medseg.interop.nnunet.results import (
    CHECKPOINTS,
    DATASET,
    PLANS,
    TrainedModel,
    choose_folds,
    find_model,
)
from medseg.interop.nnunet.trainers import explain_trainer
from medseg.interop.nnunet.weights import (
    add_aliases,
    has_batch_norm,
    rename_for_unet,
    take_weights,
)
from medseg.layouts.dataset_json import clean_text
from medseg.networks.building import build_network
from medseg.networks.definition import define_network
from medseg.networks.inferers import SLICE_AXIS, get_window_arguments
from medseg.planning import read_description
from medseg.planning.nnunet_model import describe_model
from medseg.training.model_card import imported_model_card

_SOFTWARE = "nnU-Net v2"
_TASK = "importing folds"
_MOST_JSON_BYTES = 16 << 20


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


def import_model(
    results: str | Path,
    out: str | Path,
    *,
    folds: str = "",
    configuration: str = "",
    checkpoint: str = "final",
    licence: str = "",
    listeners: Sequence[Listener] = (),
) -> Import:
    """Make a bundle of a model that nnU-Net v2 trained. nnU-Net is not needed, and nothing is run.

    Args:
        results: nnU-Net's folder ``trainer__plans__configuration``, or one above it that holds no
            other model.
        out: A new or empty folder: the bundle.
        folds: Such as ``0,1`` or ``all``; unless given, every numbered fold that is there. Scores
            of several are averaged.
        configuration: Which one to take where there are several, such as ``3d_fullres``.
        checkpoint: ``final`` or ``best``.
        licence: Of the weights.
        listeners: Told of progress, and of what a person should know.

    Raises:
        MedsegError: If no model or several are there, or medseg cannot compute such a one.
        DatasetError: If plans or ``dataset.json`` are wrong.
        CheckpointError: If weights are absent, damaged, forged, or of another network.
        OutputError: If ``out`` is not empty or cannot be written.
    """
    if checkpoint not in CHECKPOINTS:
        choices = ", ".join(CHECKPOINTS)
        raise MedsegError(f"--checkpoint takes {choices}; got '{checkpoint}'")
    target = Path(out)
    refuse_file(target)
    if target.is_dir() and any(target.iterdir()):
        raise OutputError("is not empty; name a new folder", source=target)
    model = find_model(Path(results), configuration)
    names = choose_folds(model, folds, checkpoint)
    for file in (model.folder / PLANS, model.folder / DATASET):
        _check_json_file(file)
    files = [model.locate(name, checkpoint) for name in names]
    first = read_checkpoint(files[0])
    plans = read_nnunet_plans(model.folder / PLANS, name=first.configuration)
    _refuse_cascade(plans)
    origin = _describe_origin(model, plans, files, licence)
    converter = _Converter(plans, first, origin)
    spec = converter.spec
    remarks = [*explain_trainer(first.trainer), *converter.remarks]
    with atomic_folder(target) as folder:
        members = []
        for number, (name, file) in enumerate(zip(names, files, strict=True)):
            notify(listeners, Progress(_TASK, number, len(files)))
            member = "model.pt" if len(files) == 1 else f"fold_{name}.pt"
            weights = converter.convert(_read_alike(file, first))
            save_tensors(folder / MODELS / member, weights)
            members.append(member)
        notify(listeners, Progress(_TASK, len(files), len(files)))
        _write(folder, spec, origin, members)
    for remark in remarks:
        notify(listeners, Notice(remark))
    return Import(target, spec, origin, len(members), tuple(remarks))


class _Converter:
    """Turns checkpoints of one model into weights of one bundle.

    Args:
        plans: What the model was planned as.
        first: The checkpoint of its first fold.
        origin: Where it comes from.

    Attributes:
        spec: The bundle.
        remarks: What a person should know.
    """

    def __init__(
        self, plans: NnunetPlans, first: NnunetCheckpoint, origin: OriginSpec
    ) -> None:
        description = read_description(plans.file.with_name(DATASET))
        described = describe_model(plans, description, first.mirror_axes)
        content = described.content
        if has_batch_norm(first.weights):
            content["network"]["norm"] = "batch"
        content["licence"] = origin.licence
        content["origin"] = _summarise(origin)
        unet = describe_as_unet(content["network"])
        self._own = parse_spec(content, plans.file)
        self._is_unet = unet is not None
        self.spec = self._own
        if unet is not None:
            self.spec = parse_spec(content | {"network": unet}, plans.file)
        self.remarks = described.remarks
        self._own_shapes = _list_shapes(self._own)
        self._shapes = _list_shapes(self.spec)

    def convert(self, checkpoint: NnunetCheckpoint) -> Weights:
        """Return a checkpoint's weights by the names of the bundle's network."""
        taken = take_weights(
            checkpoint.weights, self._own_shapes, checkpoint.file
        )
        if not self._is_unet:
            return add_aliases(taken, self._own_shapes)
        levels = len(self._own.network.strides)  # type: ignore[union-attr]
        renamed = rename_for_unet(taken, levels, self._shapes)
        network = build_network(self.spec, supervised=False)
        # DynUNet names its blocks twice; loading them by one name fills both.
        network.load_state_dict(renamed, strict=False)
        return network.state_dict()


def _list_shapes(spec: BundleSpec) -> Mapping[str, torch.Size]:
    with torch.device("meta"):
        network = build_network(spec, supervised=False)
    return {name: value.shape for name, value in network.state_dict().items()}


def _read_alike(file: Path, first: NnunetCheckpoint) -> NnunetCheckpoint:
    """Read a fold's checkpoint, which must have been trained as the first fold's."""
    if file == first.file:
        return first
    checkpoint = read_checkpoint(file)
    if checkpoint.configuration != first.configuration:
        raise CheckpointError(
            "the folds were trained in different configurations, so they are no ensemble",
            source=file,
            detail=f"{checkpoint.configuration} and {first.configuration}",
        )
    return checkpoint


def _refuse_cascade(plans: NnunetPlans) -> None:
    previous = plans.configuration.previous_stage
    if previous:
        raise MedsegError(
            "this is the second stage of a cascade, which needs the label map of the stage before "
            "it; medseg imports single stages, such as 3d_fullres or 3d_lowres",
            source=plans.file,
            detail=f"{plans.name} after {previous}",
        )


def _check_json_file(file: Path) -> None:
    """Make sure that a file is strict JSON of a fair size, each field once."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_JSON_BYTES:
        raise MedsegError(
            f"is no file of at most {_MOST_JSON_BYTES >> 20} MB, as nnU-Net's are",
            source=file,
        )
    try:
        parse_json(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise MedsegError("is nested too deeply", source=file) from error
    except (OSError, ValueError) as error:
        raise MedsegError(
            "is not valid JSON", source=file, detail=str(error)
        ) from error


def _describe_origin(
    model: TrainedModel,
    plans: NnunetPlans,
    files: Sequence[Path],
    licence: str,
) -> OriginSpec:
    used = [model.folder / PLANS, model.folder / DATASET, *files]
    parts = (model.trainer, model.plans, plans.name)
    content: dict[str, Any] = {
        "software": _SOFTWARE,
        "model": _to_line("__".join(part for part in parts if part)),
        "dataset": _to_line(plans.dataset_name) or "unknown",
        "files": {
            file.relative_to(model.folder).as_posix(): hash_file(file)
            for file in used
        },
        "imported_with": f"medseg {importlib.metadata.version('medseg')}",
    }
    if licence:
        content["licence"] = _to_line(licence)
    return OriginSpec.model_validate(content)


def _to_line(text: str) -> str:
    """Return text as one line without control characters, cut to a fair length."""
    return "".join(filter(str.isprintable, clean_text(text)))


def _summarise(origin: OriginSpec) -> str:
    """Return in one line where weights come from."""
    text = (
        f"{origin.software} {origin.model} of {origin.dataset}, {origin.short_hash}, licence "
        f"{origin.licence}"
    )
    return text[:200]


def _write(
    folder: Path, spec: BundleSpec, origin: OriginSpec, members: list[str]
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
    write_atomically(
        folder / "docs" / "README.md", imported_model_card(spec, origin)
    )
