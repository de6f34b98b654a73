"""``medseg plan``: a data set in, or nnU-Net's plans; a bundle for it out, with every reason."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from medseg.engine.learning.pace import voxels_per_second
from medseg.engine.networks.unet import try_network
from medseg.engine.windows import choose_device
from medseg.tools.bundle import parse_spec
from medseg.tools.cases import Case, CaseList, cases_among
from medseg.tools.files import write_whole
from medseg.tools.layouts import LISTING, Rows, Wanted, listed_as
from medseg.tools.naming import is_picture
from medseg.tools.planning import (
    Notes,
    Subject,
    Wishes,
    asked_channel,
    carry_over,
    choose_grid,
    choose_intensity,
    choose_learning,
    choose_network,
    is_nnunet_plans,
    minutes,
    read_nnunet_plans,
    read_subject,
    step_voxels,
)
from medseg.tools.runs import RUNS
from medseg.tools.survey import Survey, survey_cases
from medseg.words.config import SCHEMA_ID, BundleSpec, ChannelSpec
from medseg.words.errors import DatasetError, Fault, MedsegError, OutputError
from medseg.words.events import Listener, Warned, tell

_FOLDS = 5
_ENOUGH_FOR_PIECES = 20
"""Cases from which on "always in one piece" is believed."""
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
    survey: Survey

    def rows(self) -> list[tuple[str, str, str]]:
        """Return field, value and reason of every choice."""
        content = self.spec.model_dump(mode="json", by_alias=True)
        return [(field, _shown(content, field), why) for field, why in self.spec.notes.items()]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A data set, looked at.

    Attributes:
        root: Its folder, or its list of cases.
        subject: What it says of itself.
        found: Its cases.
        survey: What they look like.
        pictures: Whether most are pictures.
    """

    root: Path
    subject: Subject
    found: CaseList
    survey: Survey
    pictures: bool


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
    (made,) = plan_each(
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


def plan_each(
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
    for file, dims in files.items():
        if file.exists():
            raise OutputError(f"{file} exists already; remove it, or give another -o")
        if dims not in (None, 2, 3):
            raise MedsegError(f"--dims is 2 or 3, got {dims}")
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
    seen = _look_at(root, [asked_channel(text) for text in channels], listeners)
    made = []
    for file, wanted in each.items():
        content = _content(seen, file, wanted, computing)
        made.append(Plan(file, _written(content, file), seen.survey))
    return made


def _wishes(
    computing: torch.device, memory_gb: float | None, budget: str | None, class_weights: str | None
) -> Wishes:
    """Return what is wished for every bundle.

    Raises:
        MedsegError: If it is nothing that can be wished.
    """
    if class_weights not in (None, "balanced"):
        raise MedsegError(
            f"--class-weights takes 'balanced', got '{class_weights}'; write weights of your own "
            "into training.class_weights of the bundle"
        )
    return Wishes(
        dims=None,
        on_gpu=computing.type == "cuda",
        memory_gb=memory_gb or _memory_gb(computing),
        budget_minutes=minutes(budget) if budget else None,
        balanced=class_weights == "balanced",
    )


def _look_at(root: Path, asked: Sequence[ChannelSpec], listeners: Sequence[Listener]) -> _Seen:
    """Search a data set and look at its cases, each file once; tell what is odd about it.

    Raises:
        DatasetError: If it cannot be understood, has no such channels, or holds no good case.
    """
    listed = listed_as(root, "auto", Wanted(channels=tuple(asked)))
    names = tuple(channel.name for channel in asked)
    if names and listed.channel_names not in ((), names):
        raise DatasetError(
            f"{root}: --channel names {', '.join(names)}; most cases here have "
            f"{', '.join(listed.channel_names)}"
        )
    channels = max((len(row.images) for row in listed.rows), default=1)
    found = cases_among(listed, _draft(channels, listed=listed))
    subject = read_subject(root, listed, asked)
    survey = _alike(survey_cases(found, RUNS / "surveyed", listeners, subject.ignore))
    for fault in survey.faults:
        tell(listeners, Warned(f"left out: {fault}"))
    for warning in (*found.warnings, *_doubts(survey)):
        tell(listeners, Warned(warning))
    return _Seen(root, subject, found, survey, _are_pictures(found.cases))


def _written(content: dict[str, Any], file: Path) -> BundleSpec:
    """Write a bundle that is known to fit together."""
    spec = parse_spec(content, "the planned bundle")
    try_network(spec)
    write_whole(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return spec


def _carried(
    root: Path, file: Path, data: Path | None, wishes: Wishes, listeners: Sequence[Listener]
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
    subject = read_subject(listing)
    carried = carry_over(plans, subject, wishes)
    place: dict[str, Any] = {"format": "nnunet"}
    if subject.ignore is not None:
        place["ignore"] = subject.ignore
    notes: Notes = carried.content["notes"]
    if data is not None:
        place["root"] = os.path.relpath(data.resolve(), file.resolve().parent)
    else:
        notes["data.root"] = "The plans do not say where the raw data is: train with --data FOLDER"
    for what in carried.left_behind:
        tell(listeners, Warned(f"not carried over: {what}"))
    content = {"$schema": SCHEMA_ID, **carried.content, "data": place}
    return Plan(file, _written(content, file), Survey((), ()))


def _content(seen: _Seen, file: Path, wishes: Wishes, device: torch.device) -> dict[str, Any]:
    """Make the content of ``bundle.json``, choice by choice."""
    notes: Notes = {}
    subject, survey, pictures = seen.subject, seen.survey, seen.pictures
    if pictures:
        wishes = replace(wishes, dims=2)
    channels = subject.channels(survey, pictures, notes)
    labels = subject.labels(survey, notes)
    regions = subject.regions()
    if regions and wishes.balanced:
        raise MedsegError(
            "--class-weights balanced weighs labels by their volumes, and this data set has "
            "regions, which lie in each other; write training.class_weights by hand"
        )
    if wishes.budget_minutes is not None:
        wishes = replace(wishes, voxels_per_second=_speed(wishes, len(channels), device))
    data = _data(seen, file, notes)
    if subject.ignore is not None:
        data["ignore"] = subject.ignore
        notes["data.ignore"] = (
            "The data set calls this value 'ignore': nobody annotated these voxels, so nothing is "
            "learned from them and nothing is scored on them"
        )
    grid = choose_grid(survey, wishes, pictures, step_voxels(wishes, wishes.dims or 3) / 2, notes)
    shape = choose_network(grid, wishes, notes)
    training = choose_learning(survey, shape, labels, wishes, notes)
    preprocessing = choose_intensity(survey, channels, notes)
    if pictures:
        preprocessing["input"] = "picture"
    elif (spacing := grid.field) is not None:
        preprocessing["spacing_mm"] = spacing
    # What looks like one piece may be the annotated part of several; regions keep every piece.
    inference = {} if "ignore" in data or regions else _inference(survey, labels, notes)
    return {
        "$schema": SCHEMA_ID,
        "name": subject.name,
        **({"description": subject.description} if subject.description else {}),
        **({"licence": subject.licence} if subject.licence else {}),
        "channels": channels,
        "labels": labels,
        **({"regions": regions} if regions else {}),
        "data": data,
        "preprocessing": preprocessing,
        "network": shape.network(),
        "training": training,
        **({"inference": inference} if inference else {}),
        "notes": notes,
    }


def _draft(
    channels: int, dims: int = 3, wide: bool = False, listed: Rows | None = None
) -> BundleSpec:
    """Return a bundle with so many channels, for what needs one before there is a plan.

    Where the data's layout names channels and labels, the bundle has these names.
    """
    names = listed.channel_names if listed else ()
    labels = (listed.label_names if listed else {}) or {1: "label"}
    ignore = listed.ignore if listed else None
    return parse_spec(
        {
            "name": "draft",
            "channels": [
                {"name": names[n] if names else f"channel {n + 1}"} for n in range(channels)
            ],
            "labels": [
                {"index": index, "name": name, "value": value}
                for index, (value, name) in enumerate(sorted(labels.items()), start=1)
            ],
            "data": {"ignore": None if ignore in labels else ignore},
            "network": {
                "dims": dims,
                "channels": 32 if wide else [8 if dims == 3 else 16, 32, 64, 128],
                "strides": [1, 2, 2, 2],
                "deep_supervision": wide,
            },
            "training": {"patch": [48] * 3 if dims == 3 else [192] * 2, "optimizer": "adamw"},
        }
    )


def _speed(wishes: Wishes, channels: int, device: torch.device) -> float:
    return voxels_per_second(_draft(channels, wishes.dims or 3, wishes.on_gpu), device)


def _are_pictures(cases: Sequence[Case]) -> bool:
    kinds = Counter(
        all(is_picture(file) for part in case.scan.parts for file in part) for case in cases
    )
    return bool(kinds) and kinds.most_common(1)[0][0]


def _alike(survey: Survey) -> Survey:
    """Set aside cases with another number of channels than most.

    Raises:
        DatasetError: If no case is left.
    """
    if not survey.cases:
        raise DatasetError("no case can be used:", survey.faults)
    counts = Counter(len(case.channels) for case in survey.cases)
    usual = counts.most_common(1)[0][0]
    odd = sum(count for number, count in counts.items() if number != usual)
    if not odd:
        return survey
    fault = Fault(
        "channels", f"{odd} of {len(survey.cases)} cases do not have {usual} channels as the others"
    )
    kept = tuple(case for case in survey.cases if len(case.channels) == usual)
    return Survey(kept, (*survey.faults, fault))


def _doubts(survey: Survey) -> Iterator[str]:
    count = len(survey.cases)
    if count == 1:
        yield (
            "there is one case: none can be held back, so nothing can be measured and what is "
            "learned may hold for this case alone. Train with --fold none"
        )
    empty = sum(not case.labels for case in survey.cases)
    if empty:
        yield f"{empty} of {count} cases have no labelled voxel"


def _memory_gb(device: torch.device) -> float:
    if device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        return float(min(0.8 * total / 1e9, _MOST_MEMORY_GB[True]))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return float(min(0.5 * free / 1e9, _MOST_MEMORY_GB[False]))


def _data(seen: _Seen, file: Path, notes: Notes) -> dict[str, Any]:
    place = os.path.relpath(seen.root.resolve(), file.resolve().parent)
    data: dict[str, Any] = {"root": place}
    cases = seen.found.cases
    groups = {case.group for case in cases}
    if all(case.fold is not None for case in cases):
        notes["data.folds"] = "The list of cases names the folds itself"
    elif len(groups) < _FOLDS:
        data["folds"] = max(2, len(groups))
        notes["data.folds"] = (
            f"{len(groups)} patients or cases cannot be split into {_FOLDS}"
            if len(groups) > 1
            else "One case cannot be split: train with --fold none"
        )
    if len(groups) < len(cases):
        notes["data.group_by"] = (
            f"{len(cases)} cases of {len(groups)} groups by the list; a group stays in one fold"
        )
    return data


def _inference(survey: Survey, labels: Sequence[dict[str, Any]], notes: Notes) -> dict[str, Any]:
    """Leave it to held-back cases whether only largest pieces are kept; say what speaks for it."""
    single = []
    for label in labels:
        facts = survey.label(label.get("value", label["index"]))
        if len(facts) >= _ENOUGH_FOR_PIECES and all(one.pieces == 1 for one in facts):
            single.append(label["name"])
    notes["inference.keep_largest"] = (
        "The held-back cases of the training decide, label by label, whether its largest piece "
        "alone has the better Dice"
    )
    if single:
        notes["inference.keep_largest"] += (
            f". In one piece in each of the {len(survey.cases)} cases: {', '.join(single)}"
        )
    return {"keep_largest": None}


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
