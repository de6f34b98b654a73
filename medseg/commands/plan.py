"""``medseg plan``: a data set in, or nnU-Net's plans; a bundle for it out, with every reason."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from medseg._support.files import write_atomically
from medseg.bundle.bundle import is_bundle, parse_spec
from medseg.bundle.spec import SCHEMA_ID, BundleSpec
from medseg.datasets.layouts import LISTING
from medseg.errors import DatasetError, MedsegError, OutputError
from medseg.events import Listener, Notice, notify
from medseg.networks.devices import choose_device
from medseg.networks.unet import try_network
from medseg.planning import (
    Constraints,
    InspectedDataset,
    Notes,
    convert_plans,
    draft_bundle,
    inspect_dataset,
    is_nnunet_plans,
    parse_channel,
    parse_minutes,
    provisional_spec,
    read_description,
    read_nnunet_plans,
)
from medseg.planning.fingerprint import Fingerprint
from medseg.training.time_budget import voxels_per_second

_MOST_MEMORY_GB = {True: 12.0, False: 8.0}
"""Memory planned for, with and without a GPU: larger patches bring little."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A bundle and what it was made from.

    Attributes:
        file: Where it was written.
        spec: The bundle; its ``notes`` say why.
        survey: What the cases look like; without cases where nnU-Net had planned before.
    """

    file: Path
    spec: BundleSpec
    survey: Fingerprint

    def rows(self) -> list[tuple[str, str, str]]:
        """Return field, value and reason of every choice."""
        return list_choices(self.spec)


def list_choices(spec: BundleSpec) -> list[tuple[str, str, str]]:
    """Return field, value and reason of every choice that a bundle's notes explain."""
    content = spec.model_dump(mode="json", by_alias=True)
    return [(field, _shown(content, field), why) for field, why in spec.notes.items()]


def plan(
    dataset: str | Path,
    out: str | Path = "bundle.json",
    *,
    data: str | Path | None = None,
    channels: Sequence[str] = (),
    dims: int | None = None,
    memory_gb: float | None = None,
    budget: str | None = None,
    class_weights: str | None = None,
    device: str = "auto",
    listeners: Sequence[Listener] = (),
) -> Plan:
    """Plan a bundle for a data set, or turn nnU-Net's plans into one.

    Args:
        dataset: The data folder, or its list of cases; or nnU-Net's plans file.
        out: The file to write.
        data: With nnU-Net's plans: the raw data folder, whose ``dataset.json`` is read; that
            beside the plans unless given.
        channels: The channels by name, such as ``T1``, or name and modality, such as ``uptake:PT``.
            BIDS and DICOM data hold more than a bundle uses, and give these; of others these are
            the names, in order.
        dims: 2 or 3; the data decide unless given.
        memory_gb: Memory for a training step; what the device has, within reason, unless given.
        budget: Time for a training, such as ``20m`` or ``2h``.
        class_weights: ``balanced`` lets small labels weigh more in the loss; all weigh alike unless
            given.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``: what will train.
        listeners: Told of progress, and of cases that are left out.

    Returns:
        The plan; its bundle is written to ``out``.

    Raises:
        DatasetError: If the data set cannot be understood, or holds no good case.
        OutputError: If ``out`` exists or cannot be written.
        MedsegError: If a wish cannot be met.
    """
    (made,) = plan_bundles(
        dataset,
        {Path(out): dims},
        data=data,
        channels=channels,
        memory_gb=memory_gb,
        budget=budget,
        class_weights=class_weights,
        device=device,
        listeners=listeners,
    )
    return made


def plan_bundles(
    dataset: str | Path,
    files: Mapping[Path, int | None],
    *,
    data: str | Path | None = None,
    channels: Sequence[str] = (),
    memory_gb: float | None = None,
    budget: str | None = None,
    class_weights: str | None = None,
    device: str = "auto",
    listeners: Sequence[Listener] = (),
) -> list[Plan]:
    """Plan several bundles for a data set, which is searched and looked at once.

    Args:
        dataset: As for ``plan``.
        files: The files to write, each with its ``dims``.
        data: As for ``plan``; so are the others.
        channels: The channels by name.
        memory_gb: Memory for a training step.
        budget: Time for a training.
        class_weights: ``balanced``, or alike.
        device: What will train.
        listeners: Told of progress, and of cases that are left out.

    Returns:
        The plans, in the order of ``files``.

    Raises:
        As ``plan``; nothing is written where one of the files exists.
    """
    root = Path(dataset)
    _check_files(files)
    if is_bundle(root):
        raise MedsegError(
            f"{root} is a bundle, not data: train it by medseg train, or read its reasons by "
            "medseg plan --explain"
        )
    computing = choose_device(device)
    wishes = _wishes(computing, memory_gb, budget, class_weights)
    each = {file: replace(wishes, dims=dims) for file, dims in files.items()}
    if is_nnunet_plans(root):
        if channels:
            raise MedsegError("--channel goes with data; nnU-Net's dataset.json names channels")
        raw = Path(data) if data else None
        return [_carried(root, file, raw, wanted, listeners) for file, wanted in each.items()]
    if data is not None:
        raise MedsegError("--data goes with nnU-Net's plans; else DATASET is the data")
    seen = inspect_dataset(root, [parse_channel(text) for text in channels], listeners)
    if seen.pictures and 3 in files.values():
        raise MedsegError(f"{root} holds pictures, which have two dimensions; leave out --dims")
    made = []
    for file, wanted in each.items():
        content = draft_bundle(seen, file, _suited(wanted, seen, computing))
        made.append(Plan(file, _written(content, file), seen.survey))
    return made


def _check_files(files: Mapping[Path, int | None]) -> None:
    """Check that nothing would be overwritten.

    Raises:
        OutputError: If a file is there.
        MedsegError: If a number of dimensions is none.
    """
    for file, dims in files.items():
        if file.is_dir():
            raise OutputError(f"{file} is a folder; give -o a file, such as {file}/bundle.json")
        if file.exists():
            raise OutputError(f"{file} exists already; remove it, or give another -o")
        if dims not in (None, 2, 3):
            raise MedsegError(f"--dims is 2 or 3, got {dims}")


def _wishes(
    computing: torch.device, memory_gb: float | None, budget: str | None, class_weights: str | None
) -> Constraints:
    """Return what is wished for every bundle.

    Raises:
        MedsegError: If it is nothing that can be wished.
    """
    if class_weights not in (None, "balanced"):
        raise MedsegError(
            f"--class-weights takes 'balanced', got '{class_weights}'; write weights of your own "
            "into training.class_weights of the bundle"
        )
    return Constraints(
        dims=None,
        on_gpu=computing.type == "cuda",
        memory_gb=memory_gb or _memory_gb(computing),
        budget_minutes=parse_minutes(budget) if budget else None,
        balanced=class_weights == "balanced",
    )


def _written(content: dict[str, Any], file: Path) -> BundleSpec:
    """Write a bundle that is known to fit together."""
    spec = parse_spec(content, "the planned bundle")
    try_network(spec)
    write_atomically(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return spec


def _carried(
    root: Path, file: Path, data: Path | None, wishes: Constraints, listeners: Sequence[Listener]
) -> Plan:
    """Turn nnU-Net's plans into a bundle; nothing of the data is opened.

    Raises:
        DatasetError: If plans or ``dataset.json`` are not right or do not fit each other.
        MedsegError: If a wish needs the data.
    """
    if wishes.balanced:
        raise MedsegError(
            "--class-weights balanced needs the labels' volumes, and nnU-Net's plans do not say "
            "them; plan from the data, or write training.class_weights into the bundle"
        )
    plans = read_nnunet_plans(root, wishes.dims)
    listing = (data or root.parent) / LISTING
    if not listing.is_file():
        raise DatasetError(
            f"{listing}: the names of channels and labels stand in nnU-Net's {LISTING}, which is "
            "not there; put it beside the plans, or give the raw data folder by --data"
        )
    subject = read_description(listing)
    carried = convert_plans(plans, subject, wishes)
    place: dict[str, Any] = {"format": "nnunet"}
    if subject.ignore is not None:
        place["ignore"] = subject.ignore
    notes: Notes = carried.content["notes"]
    if data is not None:
        place["root"] = os.path.relpath(data.resolve(), file.resolve().parent)
    else:
        notes["data.root"] = "The plans do not say where the raw data is: train with --data FOLDER"
    for what in carried.left_behind:
        notify(listeners, Notice(f"not carried over: {what}"))
    content = {"$schema": SCHEMA_ID, **carried.content, "data": place}
    return Plan(file, _written(content, file), Fingerprint((), ()))


def _suited(wishes: Constraints, seen: InspectedDataset, device: torch.device) -> Constraints:
    """Suit wishes to a data set; with a time budget, measure how fast the device trains it."""
    if seen.pictures:
        wishes = replace(wishes, dims=2)
    if wishes.budget_minutes is None:
        return wishes
    channels = len(seen.survey.cases[0].channels)
    labels = {value: f"label {value}" for value in seen.survey.values} or {1: "label"}
    smallest = provisional_spec(channels, labels, dims=wishes.dims or 3, wide=wishes.on_gpu)
    return replace(wishes, voxels_per_second=voxels_per_second(smallest, device))


def _memory_gb(device: torch.device) -> float:
    if device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        return float(min(0.8 * total / 1e9, _MOST_MEMORY_GB[True]))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return float(min(0.5 * free / 1e9, _MOST_MEMORY_GB[False]))


def _shown(content: Any, field: str) -> str:
    """Return a field's value, as far as the path leads; nothing where it names no field."""
    if field.partition(".")[0] not in content:
        return ""
    for key in field.split("."):
        if isinstance(content, list) and key.isdigit() and int(key) < len(content):
            content = content[int(key)]
        elif isinstance(content, dict) and key in content:
            content = content[key]
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
