"""``medseg import``: a model that other software trained becomes a bundle."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from medseg._support.folders import refuse_unreadable
from medseg._support.json_files import parse_json_object
from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec import BundleSpec, OriginSpec
from medseg.bundle.weights import Weights
from medseg.commands.import_monai import find_monai_model, import_monai_model
from medseg.commands.imported_bundle import (
    Import,
    describe_origin,
    refuse_used_folder,
    summarise_origin,
    write_imported,
)
from medseg.errors import CheckpointError, MedsegError
from medseg.events import Listener, Notice, notify
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
from medseg.networks.building import build_for_shapes, build_network
from medseg.planning import read_description
from medseg.planning.nnunet_model import describe_model

Adapt = Callable[[dict[str, Any]], None]

_SOFTWARE = "nnU-Net v2"
_MOST_JSON_BYTES = 16 << 20


def import_model(
    model: str | Path,
    out: str | Path,
    *,
    folds: str = "",
    configuration: str = "",
    checkpoint: str = "final",
    licence: str = "",
    adapt: Adapt | None = None,
    listeners: Sequence[Listener] = (),
) -> Import:
    """Make a bundle of a model that other software trained, which is not needed. Nothing is run.

    Args:
        model: nnU-Net's folder ``trainer__plans__configuration``, or one above it that holds no
            other model; a MONAI Bundle; or a model of Auto3DSeg, its file or its folder. Which of
            these it is, is recognised.
        out: A new or empty folder: the bundle.
        folds: Of nnU-Net, such as ``0,1`` or ``all``; unless given, every numbered fold that is
            there. Scores of several are averaged.
        configuration: Of nnU-Net: which one to take where there are several, such as
            ``3d_fullres``.
        checkpoint: Of nnU-Net: ``final`` or ``best``.
        licence: Of the weights; what the model's own files tell unless given.
        adapt: Of nnU-Net: changes the content of the ``bundle.json`` before it is checked, for what
            software that runs the model does otherwise than nnU-Net.
        listeners: Told of progress, and of what a person should know.

    Raises:
        MedsegError: If no model or several are there, or medseg cannot compute such a one.
        DatasetError: If nnU-Net's plans or ``dataset.json`` are wrong.
        CheckpointError: If weights are absent, damaged, forged, or of another network.
        OutputError: If ``out`` is not empty or cannot be written.
    """
    if checkpoint not in CHECKPOINTS:
        choices = ", ".join(CHECKPOINTS)
        raise MedsegError(f"--checkpoint takes {choices}; got '{checkpoint}'")
    target = Path(out)
    refuse_used_folder(target)
    source = Path(model)
    refuse_unreadable(source, by_name=True)
    monais = find_monai_model(source)
    if monais is not None:
        _refuse_options(folds, configuration, checkpoint)
        return import_monai_model(monais, target, licence, listeners)
    trained = find_model(source, configuration)
    parts = (trained.trainer, trained.plans, trained.configuration)
    named = "__".join(part for part in parts if part)
    notify(listeners, Notice(f"found: {_SOFTWARE} model {named}".rstrip()))
    return _import_nnunet(
        trained, target, folds, checkpoint, licence, adapt, listeners
    )


def _refuse_options(folds: str, configuration: str, checkpoint: str) -> None:
    """Refuse options that only nnU-Net's models have a meaning for."""
    given = [
        option
        for option, value in (
            ("--folds", folds),
            ("--configuration", configuration),
            ("--checkpoint", checkpoint.removeprefix(CHECKPOINTS[0])),
        )
        if value
    ]
    if given:
        raise MedsegError(
            f"{' and '.join(given)} choose among nnU-Net's models, and this is none; leave it out"
        )


def _import_nnunet(
    model: TrainedModel,
    target: Path,
    folds: str,
    checkpoint: str,
    licence: str,
    adapt: Adapt | None,
    listeners: Sequence[Listener],
) -> Import:
    names = choose_folds(model, folds, checkpoint)
    for file in (model.folder / PLANS, model.folder / DATASET):
        _check_json_file(file)
    files = [model.locate(name, checkpoint) for name in names]
    first = read_checkpoint(files[0])
    plans = read_nnunet_plans(model.folder / PLANS, name=first.configuration)
    _refuse_cascade(plans)
    origin = _describe_origin(model, plans, files, licence)
    converter = _Converter(plans, first, origin, adapt)
    remarks = [*explain_trainer(first.trainer), *converter.remarks]
    members = {}
    for name, file in zip(names, files, strict=True):
        member = "model.pt" if len(files) == 1 else f"fold_{name}.pt"
        members[member] = partial(_convert, converter, file, first)
    return write_imported(
        target, converter.spec, origin, members, remarks, listeners
    )


class _Converter:
    """Turns checkpoints of one model into weights of one bundle.

    Args:
        plans: What the model was planned as.
        first: The checkpoint of its first fold.
        origin: Where it comes from.
        adapt: As for ``import_model``.

    Attributes:
        spec: The bundle.
        remarks: What a person should know.
    """

    def __init__(
        self,
        plans: NnunetPlans,
        first: NnunetCheckpoint,
        origin: OriginSpec,
        adapt: Adapt | None = None,
    ) -> None:
        description = read_description(plans.file.with_name(DATASET))
        content = describe_model(plans, description, first.mirror_axes)
        if has_batch_norm(first.weights):
            content["network"]["norm"] = "batch"
        content["licence"] = origin.licence
        content["origin"] = summarise_origin(origin)
        if adapt is not None:
            adapt(content)
        unet = describe_as_unet(content["network"])
        self._own = parse_spec(content, plans.file)
        self._is_unet = unet is not None
        self.spec = self._own
        if unet is not None:
            self.spec = parse_spec(content | {"network": unet}, plans.file)
        self.remarks = tuple(_explain_mirroring(self.spec))
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


def _explain_mirroring(spec: BundleSpec) -> Iterator[str]:
    """Say what averaging over flips costs, where a bundle does it."""
    if not spec.inference.mirror:
        return
    times = 2 ** len(spec.mirror_axes)
    yield (
        f"as nnU-Net does by default, scores are averaged over {times} flips of each window, "
        f"which takes {times} times as long; --no-mirror segments without"
    )


def _convert(
    converter: _Converter, file: Path, first: NnunetCheckpoint
) -> Weights:
    """Return the weights of one fold by the names of the bundle's network."""
    return converter.convert(_read_alike(file, first))


def _list_shapes(spec: BundleSpec) -> Mapping[str, torch.Size]:
    network = build_for_shapes(spec)
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
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise MedsegError(
            "cannot be read", source=file, detail=str(error)
        ) from error
    parse_json_object(text, file, MedsegError)


def _describe_origin(
    model: TrainedModel,
    plans: NnunetPlans,
    files: Sequence[Path],
    licence: str,
) -> OriginSpec:
    used = [model.folder / PLANS, model.folder / DATASET, *files]
    parts = (model.trainer, model.plans, plans.name)
    return describe_origin(
        _SOFTWARE,
        "__".join(part for part in parts if part),
        plans.dataset_name,
        {file.relative_to(model.folder).as_posix(): file for file in used},
        licence,
    )
