"""``medseg plan``: a data set in, or nnU-Net's plans; a bundle for it out, with every reason."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from medseg._support.files import write_atomically
from medseg._support.platform.processes import measure_memory
from medseg.bundle.bundle import is_bundle, parse_spec
from medseg.bundle.spec import SCHEMA_ID, BundleSpec
from medseg.errors import DatasetError, MedsegError, OutputError
from medseg.events import Listener, Notice, notify
from medseg.layouts import LISTING, Selection
from medseg.layouts.cases_csv import parse_columns
from medseg.networks.building import try_network
from medseg.networks.devices import choose_device
from medseg.planning import (
    Constraints,
    DatasetDescription,
    Fingerprint,
    InspectedDataset,
    LabelWishes,
    convert_plans,
    draft_bundle,
    inspect_dataset,
    is_nnunet_plans,
    make_provisional_spec,
    parse_channel,
    parse_label_requests,
    parse_minutes,
    read_description,
    read_nnunet_plans,
)
from medseg.planning.case_table import draft_case_table
from medseg.training.time_budget import voxels_per_second

_MAX_MEMORY_GB = {True: 12.0, False: 8.0}
"""Memory planned for, with and without a GPU: larger patches bring little."""
_GPU_SHARE, _CPU_SHARE = 0.8, 0.5
"""Share of a GPU's memory, and of the free main memory, that a step may take."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A bundle and what it was made from.

    Attributes:
        file: Where it was written.
        spec: The bundle; its ``notes`` say why.
        fingerprint: What the cases are like; without cases if nnU-Net's plans were converted.
        recognised: What the data set was taken for, and why; empty if plans were converted.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medseg import Plan, plan
        >>> from medseg.testing import write_dataset
        >>> folder = Path(tempfile.mkdtemp())
        >>> data = write_dataset(folder / "data", 2, shape=(24, 20, 16), spacing=9.0)
        >>> planned: Plan = plan(data, folder / "bundle.json", device="cpu")
        >>> planned.spec.preprocessing.spacing_mm
        (9.0, 9.0, 9.0)
        >>> reasons = {field: reason for field, value, reason in planned.rows()}
        >>> reasons["preprocessing.spacing_mm"]
        'Every scan has 9 × 9 × 9 mm'
    """

    file: Path
    spec: BundleSpec
    fingerprint: Fingerprint
    recognised: tuple[str, ...] = ()

    @property
    def survey(self) -> Fingerprint:
        """What ``fingerprint`` was called in 0.1.0."""
        warnings.warn(
            "Plan.survey is now Plan.fingerprint; the old name will be removed in the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.fingerprint

    def rows(self) -> list[tuple[str, str, str]]:
        """Return field, value and reason of every choice."""
        return list_choices(self.spec)


def list_choices(spec: BundleSpec) -> list[tuple[str, str, str]]:
    """Return field, value and reason of every choice that a bundle's notes explain."""
    content = spec.model_dump(mode="json", by_alias=True)
    return [
        (field, _format_value(content, field), why)
        for field, why in spec.notes.items()
    ]


def plan(
    dataset: str | Path,
    out: str | Path = "bundle.json",
    *,
    data: str | Path | None = None,
    channels: Sequence[str] = (),
    images: Sequence[str] = (),
    labels: str | None = None,
    columns: str | None = None,
    split_4d: str = "",
    dims: int | None = None,
    memory_gb: float | None = None,
    budget: str | None = None,
    class_weights: str | None = None,
    label_values: Sequence[str] = (),
    stray_voxels: int = 0,
    device: str = "auto",
    listeners: Sequence[Listener] = (),
) -> Plan:
    """Plan a bundle for a data set, or convert nnU-Net's plans into one.

    Args:
        dataset: The data folder, or its list of cases; or nnU-Net's plans file.
        out: The file to write.
        data: With nnU-Net's plans: the raw data folder, whose ``dataset.json`` is read; that
            beside the plans unless given.
        channels: The channels by name, such as ``T1``, or name and modality, such as ``uptake:PT``.
            Of BIDS and DICOM data, which hold more than a bundle uses, these are taken; of others
            these are the names, in order.
        images: Patterns of the image files, one for each channel, such as ``scans/*.nii.gz``, where
            names do not say which files are images. Relative to the folder.
        labels: The pattern of the label files, such as ``truth/*_manual.nii.gz``.
        columns: Of a CSV whose columns have other names: ``image=scan,label=seg``.
        split_4d: As for ``medseg.segment``; the bundle keeps it.
        dims: 2 or 3; the data decide unless given.
        memory_gb: Memory for a training step in GB; unless given, what the device has, within
            reason.
        budget: Time for a training run, such as ``20m`` or ``2h``.
        class_weights: ``balanced`` lets small labels weigh more in the loss; all weigh alike unless
            given.
        label_values: What values or colours of label files mean: ``liver=1``, ``1=liver``,
            ``myelin=127,128`` or ``road=128,64,128``. ``background`` and ``ignore`` are names for
            what is nothing, and what nobody annotated.
        stray_voxels: Values that so many voxels at most have, in all label files together, count as
            background, and are named.
        device: What will be used for training: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        listeners: Told of progress, and of cases that are left out.

    Returns:
        The plan; its bundle is written to ``out``.

    Raises:
        DatasetError: If the layout of the data set is unknown, or no case can be used.
        OutputError: If ``out`` exists or cannot be written.
        MedsegError: If a constraint cannot be met.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import medseg
        >>> from medseg.testing import write_dataset
        >>> folder = Path(tempfile.mkdtemp())
        >>> data = write_dataset(folder / "data", 2, shape=(24, 20, 16), spacing=9.0)
        >>> planned = medseg.plan(data, folder / "bundle.json", dims=2, device="cpu")
        >>> [label.name for label in planned.spec.labels], planned.spec.network.dims
        (['liver', 'kidney'], 2)
    """
    (planned,) = plan_bundles(
        dataset,
        {Path(out): dims},
        data=data,
        channels=channels,
        images=images,
        labels=labels,
        columns=columns,
        split_4d=split_4d,
        memory_gb=memory_gb,
        budget=budget,
        class_weights=class_weights,
        label_values=label_values,
        stray_voxels=stray_voxels,
        device=device,
        listeners=listeners,
    )
    return planned


def plan_bundles(
    dataset: str | Path,
    files: Mapping[Path, int | None],
    *,
    data: str | Path | None = None,
    channels: Sequence[str] = (),
    images: Sequence[str] = (),
    labels: str | None = None,
    columns: str | None = None,
    split_4d: str = "",
    memory_gb: float | None = None,
    budget: str | None = None,
    class_weights: str | None = None,
    label_values: Sequence[str] = (),
    stray_voxels: int = 0,
    device: str = "auto",
    listeners: Sequence[Listener] = (),
) -> list[Plan]:
    """Plan several bundles for a data set, which is inspected once.

    Args:
        dataset: As for ``plan``.
        files: The files to write, each with its ``dims``.
        data: As for ``plan``; so are the others.
        channels: The channels by name.
        images: Patterns of image files.
        labels: The pattern of label files.
        columns: Of a CSV with columns of other names.
        split_4d: How DICOM series are split that no header splits.
        memory_gb: Memory for a training step.
        budget: Time for a training run.
        class_weights: ``balanced``, or alike.
        label_values: What values or colours mean.
        stray_voxels: What is left out.
        device: What will be used for training.
        listeners: Told of progress, and of cases that are left out.

    Returns:
        The plans, in the order of ``files``.

    Raises:
        DatasetError: As ``plan``.
        OutputError: If one of the files exists; nothing is written then.
        MedsegError: As ``plan``.
    """
    root = Path(dataset)
    _check_files(files)
    if is_bundle(root):
        raise MedsegError(
            "this is a bundle, not data: train it with medseg train, or print its reasons with "
            "medseg plan --explain",
            source=root,
        )
    training_device = choose_device(device)
    constraints = _make_constraints(
        training_device, memory_gb, budget, class_weights
    )
    by_file = {
        file: replace(constraints, dims=dims) for file, dims in files.items()
    }
    requests = parse_label_requests(label_values)
    wishes = LabelWishes(tuple(requests), stray_voxels)
    if is_nnunet_plans(root):
        if any((channels, images, labels, columns, split_4d, wishes)):
            raise MedsegError(
                "--channel, --images, --labels, --columns, --split-4d and --leave-out-stray go "
                "with data; nnU-Net's plans go with imagesTr/ and labelsTr/, whose dataset.json "
                "names channels and labels"
            )
        raw = Path(data) if data else None
        return [
            _convert(root, file, raw, each, listeners)
            for file, each in by_file.items()
        ]
    if data is not None:
        raise MedsegError(
            "--data goes with nnU-Net's plans; otherwise DATASET is the data"
        )
    requested = _parse_request(channels, images, labels, columns)
    requested = replace(requested, split_4d=split_4d)
    inspected = inspect_dataset(root, requested, listeners, wishes)
    return _draft_plans(inspected, by_file, training_device)


def _parse_request(
    channels: Sequence[str],
    images: Sequence[str],
    labels: str | None,
    columns: str | None,
) -> Selection:
    """Return what a person says of the data.

    Raises:
        MedsegError: If a channel or a column is not right.
    """
    parsed = [parse_channel(text) for text in channels]
    return Selection(
        channels=tuple(parsed),
        image_patterns=tuple(images),
        label_pattern=labels or "",
        columns=parse_columns(columns) if columns else None,
    )


def draft_table(
    dataset: str | Path,
    file: str | Path,
    *,
    images: Sequence[str] = (),
    labels: str | None = None,
) -> tuple[bool, int]:
    """Write the cases of a data set as a table; where none are found, every image file.

    Args:
        dataset: The data folder.
        file: The CSV to write.
        images: As for ``plan``.
        labels: As for ``plan``.

    Returns:
        Whether every case has its label, and how many lines there are.

    Raises:
        DatasetError: If there is no image file.
        OutputError: If the file exists or cannot be written.
    """
    selection = Selection(
        image_patterns=tuple(images), label_pattern=labels or ""
    )
    root, path = Path(dataset), Path(file)
    if path.exists():
        raise OutputError(
            "exists already; remove it, or choose another name", source=path
        )
    draft = draft_case_table(root, path.parent, selection)
    write_atomically(path, draft.text)
    return draft.is_complete, draft.lines


def _draft_plans(
    dataset: InspectedDataset,
    by_file: Mapping[Path, Constraints],
    device: torch.device,
) -> list[Plan]:
    """Draft a bundle for each file.

    Raises:
        MedsegError: If three dimensions are wanted of pictures; nothing is written then.
    """
    if dataset.pictures and any(each.dims == 3 for each in by_file.values()):
        raise MedsegError(
            "the data set holds pictures, which have two dimensions; leave out --dims",
            source=dataset.root,
        )
    plans = []
    for file, constraints in by_file.items():
        adapted = _adapt_constraints(constraints, dataset, device)
        content = draft_bundle(dataset, file, adapted)
        spec = _write_bundle(content, file)
        planned = Plan(file, spec, dataset.fingerprint, dataset.recognised)
        plans.append(planned)
    return plans


def _check_files(files: Mapping[Path, int | None]) -> None:
    """Check that nothing would be overwritten.

    Raises:
        OutputError: If a file is there.
        MedsegError: If a number of dimensions is neither 2 nor 3.
    """
    for file, dims in files.items():
        if file.is_dir():
            raise OutputError(
                "is a folder; give -o a file, such as bundle.json in it",
                source=file,
            )
        if file.exists():
            raise OutputError(
                "exists already; remove it, or choose another -o", source=file
            )
        if dims not in (None, 2, 3):
            raise MedsegError(f"--dims takes 2 or 3; got {dims}")


def _make_constraints(
    device: torch.device,
    memory_gb: float | None,
    budget: str | None,
    class_weights: str | None,
) -> Constraints:
    """Return what every bundle has to fit.

    Raises:
        MedsegError: If an option has no valid value.
    """
    if class_weights not in (None, "balanced"):
        raise MedsegError(
            f"--class-weights takes 'balanced', got '{class_weights}'; write weights of your own "
            "into training.class_weights of the bundle"
        )
    return Constraints(
        dims=None,
        on_gpu=device.type == "cuda",
        memory_gb=memory_gb or _measure_memory_gb(device),
        budget_minutes=parse_minutes(budget) if budget else None,
        balanced=class_weights == "balanced",
    )


def _write_bundle(content: dict[str, Any], file: Path) -> BundleSpec:
    """Write a bundle after making sure that its fields and its network fit together."""
    spec = parse_spec(content, "the planned bundle")
    try_network(spec)
    write_atomically(
        file, json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    )
    return spec


def _convert(
    plans_file: Path,
    file: Path,
    data: Path | None,
    constraints: Constraints,
    listeners: Sequence[Listener],
) -> Plan:
    """Convert nnU-Net's plans into a bundle; no scan is opened.

    Raises:
        DatasetError: If plans or ``dataset.json`` are wrong or do not fit each other.
        MedsegError: If a constraint needs the data.
    """
    if constraints.balanced:
        raise MedsegError(
            "--class-weights balanced needs the labels' volumes, which nnU-Net's plans do not "
            "state; plan from the data, or write training.class_weights into the bundle"
        )
    plans = read_nnunet_plans(plans_file, constraints.dims)
    description = _read_nnunet_description(plans_file, data)
    converted = convert_plans(plans, description, constraints)
    for omission in converted.omissions:
        notify(listeners, Notice(f"not carried over: {omission}"))
    data_section: dict[str, Any] = {"format": "nnunet"}
    if description.ignore is not None:
        data_section["ignore"] = description.ignore
    if data is not None:
        data_section["root"] = os.path.relpath(
            data.resolve(), file.resolve().parent
        )
    else:
        converted.content["notes"]["data.root"] = (
            "The plans do not say where the raw data are: train with --data FOLDER"
        )
    content = {"$schema": SCHEMA_ID, **converted.content, "data": data_section}
    return Plan(file, _write_bundle(content, file), Fingerprint((), ()))


def _read_nnunet_description(
    plans_file: Path, data: Path | None
) -> DatasetDescription:
    """Read the ``dataset.json`` of the raw data, or that beside the plans.

    Raises:
        DatasetError: If there is none.
    """
    listing = (data or plans_file.parent) / LISTING
    if not listing.is_file():
        raise DatasetError(
            f"nnU-Net's {LISTING}, which names channels and labels, is missing; put it beside the "
            "plans, or name the raw data folder with --data",
            source=listing,
        )
    return read_description(listing)


def _adapt_constraints(
    constraints: Constraints, dataset: InspectedDataset, device: torch.device
) -> Constraints:
    """Adapt constraints to a data set; with a time budget, measure how fast the device trains."""
    if dataset.pictures:
        constraints = replace(constraints, dims=2)
    if constraints.budget_minutes is None:
        return constraints
    fingerprint = dataset.fingerprint
    labels = {
        value: f"label {value}" for value in fingerprint.label_values
    } or {1: "label"}
    smallest = make_provisional_spec(
        fingerprint.channel_count,
        labels,
        dims=constraints.dims or 3,
        wide=constraints.on_gpu,
    )
    return replace(
        constraints, voxels_per_second=voxels_per_second(smallest, device)
    )


def _measure_memory_gb(device: torch.device) -> float:
    """Return how much memory of a device a training step may take, in GB."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        _, total = torch.cuda.mem_get_info(device)
        share = _GPU_SHARE * total
    else:
        share = _CPU_SHARE * measure_memory().available
    return float(min(share / 1e9, _MAX_MEMORY_GB[on_gpu]))


def _format_value(content: Any, field: str) -> str:
    """Return a field's value, as far as the path leads; nothing where it names no field."""
    section, *_ = field.split(".")
    if section not in content:
        return ""
    value = content
    for key in field.split("."):
        value = _step_into(value, key)
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False)
    )


def _step_into(value: Any, key: str) -> Any:
    """Return an item of a mapping or a list; the value itself where it has no such item."""
    if isinstance(value, dict):
        return value.get(key, value)
    if isinstance(value, list) and key.isdigit() and int(key) < len(value):
        return value[int(key)]
    return value
