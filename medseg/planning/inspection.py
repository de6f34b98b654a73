"""Inspects a data set once, whatever is planned for it: its cases, its names, its fingerprint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec import BundleSpec, ChannelSpec
from medseg.datasets.case_workers import HERE, CaseWorkers
from medseg.datasets.cases import Case, CaseList, make_cases
from medseg.datasets.named_segments import name_segments
from medseg.datasets.outliers import (
    Aspect,
    Outlier,
    describe_outliers,
    find_outliers,
)
from medseg.datasets.statements import read_statement
from medseg.errors import DatasetError, join_faults
from medseg.events import Listener, Notice, notify
from medseg.labels import LabelSet
from medseg.layouts import CaseListing, Selection, list_cases
from medseg.layouts.channel_names import find_channels
from medseg.layouts.splits import describe_folds, find_split, keep_split
from medseg.names import abbreviate, is_picture
from medseg.planning.description import DatasetDescription, read_description
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.fingerprint_cache import extract_fingerprint
from medseg.planning.mask_inspection import find_mask_labels
from medseg.planning.mask_labels import (
    NO_WISHES,
    Fields,
    LabelWishes,
    MaskLabels,
)
from medseg.planning.network import define_slim_network
from medseg.training.runs import RUNS

_CACHE = RUNS / "surveyed"
"""Where fingerprints of cases are kept; release 0.1.0 gave the folder its name."""

NO_NAMES: Mapping[int, str] = {}

_BRIGHTEST = {255, 65535}
"""Values by which tools mark masks of one structure, where others write 1."""

_MIN_CASES_TO_DOUBT = 5
"""From so many cases on, a label that only one of them has may be a mistake."""


@dataclass(frozen=True, slots=True)
class InspectedDataset:
    """A data set after its inspection.

    Attributes:
        root: Its folder, or its list of cases.
        description: What it says of itself.
        case_list: Its cases, and the faults of what is listed and is no case.
        fingerprint: What its cases are like.
        pictures: Whether most are pictures, not scans.
        layout: How the data set lists its cases.
        recognised: Why it is taken for that, and what that says, in sentences.
        reading: The fields of ``data`` that the bundle needs to find the same cases.
    """

    root: Path
    description: DatasetDescription
    case_list: CaseList
    fingerprint: Fingerprint
    pictures: bool
    layout: str = "auto"
    recognised: tuple[str, ...] = ()
    reading: Mapping[str, Any] = field(default_factory=dict)


def inspect_dataset(
    root: Path,
    requested: Selection,
    listeners: Sequence[Listener],
    wishes: LabelWishes = NO_WISHES,
    workers: CaseWorkers = HERE,
) -> InspectedDataset:
    """Search a data set and inspect its cases, each file once.

    Args:
        root: The data folder, or its list of cases.
        requested: The channels, patterns and columns, where a person named them.
        listeners: Told of progress, of cases that are left out, and of what looks wrong.
        wishes: What a person asks of labels.
        workers: Who measures the cases.

    Raises:
        DatasetError: If its layout is unknown, it has no such channels, or no case can be used.
    """
    channels = requested.channels
    listed = list_cases(root, "auto", requested)
    requested = _keep_found_split(root, listed, requested)
    stated = read_statement(root, listed)
    name_segments(listed, requested, known=stated.labels.list_foreground())
    _check_channel_names(root, listed, channels)
    description = read_description(root, listed, channels)
    # Which labels there are is not known yet, and a data set may name more than a bundle can
    # have; to find cases, none is needed.
    provisional = make_provisional_spec(
        _count_channels(listed, description),
        {1: "label"},
        names=listed.channel_names,
        ignore=listed.ignore,
    )
    case_list = make_cases(listed, provisional)
    mask_labels = find_mask_labels(
        root, case_list.cases, description, wishes, listeners
    )
    label_set = None
    label_names = description.label_names
    if mask_labels is not None:
        label_set = _make_label_set(mask_labels)
        label_names = {label.index: label.name for label in label_set}
    fingerprint = extract_fingerprint(
        case_list, _CACHE, listeners, description.ignore, label_set, workers
    )
    if not fingerprint.cases:
        raise DatasetError(
            _explain_no_case(listed, requested), fingerprint.faults
        )
    if mask_labels is not None:
        mask_labels = mask_labels.keep(fingerprint.label_values)
        description = replace(description, mask_labels=mask_labels)
    for line in join_faults(fingerprint.faults):
        notify(listeners, Notice(f"left out: {line}"))
    pictures = _are_pictures(case_list.cases)
    described = description.describe_channels(fingerprint, pictures, {})
    modalities = [channel.get("modality", "OT") for channel in described]
    outliers = _find_outliers(fingerprint, modalities, label_names, pictures)
    fingerprint = replace(fingerprint, apart=_choose_apart(outliers))
    doubts = [
        *describe_outliers(outliers),
        *_find_doubts(fingerprint, description.label_keys),
    ]
    for warning in (*case_list.warnings, *fingerprint.warnings, *doubts):
        notify(listeners, Notice(warning))
    return InspectedDataset(
        root,
        description,
        case_list,
        fingerprint,
        pictures,
        listed.layout,
        (*listed.recognised, *_describe_split(listed, case_list.cases)),
        _list_reading_fields(listed, requested),
    )


def _explain_no_case(listed: CaseListing, requested: Selection) -> str:
    names = listed.channel_names
    if len(names) < 2 or requested.channels:
        return "no case can be used:"
    return (
        "no case can be used; channels that lie on grids of their own are not resampled: take one "
        "by --channel NAME, or resample them to one grid:"
    )


def _list_reading_fields(
    listed: CaseListing, requested: Selection
) -> dict[str, Any]:
    """Return the fields of ``data`` that say how the cases were found, where names did not."""
    fields: dict[str, Any] = {}
    if listed.layout == "tree":
        fields["format"] = listed.layout
    labels = requested.label_pattern or listed.label_pattern
    if requested.image_patterns:
        fields["images"] = list(requested.image_patterns)
    if labels:
        fields["labels"] = labels
    if requested.splits:
        fields["splits"] = requested.splits
    if requested.split_4d:
        fields["split_4d"] = requested.split_4d
    if requested.columns is not None:
        fields["columns"] = requested.columns.model_dump(
            mode="json", exclude_none=True
        )
    return fields


def _keep_found_split(
    root: Path, listed: CaseListing, requested: Selection
) -> Selection:
    """Keep the split that lies in the data set or beside it, where none was asked for."""
    if requested.splits:
        return requested
    splits = find_split(listed, root)
    if splits is None:
        return requested
    keep_split(listed, root, splits)
    return replace(requested, splits=splits)


def _describe_split(
    listed: CaseListing, cases: Sequence[Case]
) -> Iterator[str]:
    """Say that the data set's own split is kept, where its layout has not said so."""
    is_said = any("split is kept" in text for text in listed.recognised)
    folds = [case.fold for case in cases if case.fold is not None]
    if folds and len(folds) == len(cases) and not is_said:
        yield describe_folds(folds)


def _make_label_set(mask_labels: MaskLabels) -> LabelSet:
    spec = make_provisional_spec(
        1,
        {},
        label_fields=mask_labels.labels,
        data=mask_labels.list_data_fields(),
    )
    return spec.label_set


def _check_channel_names(
    root: Path, listed: CaseListing, requested: Sequence[ChannelSpec]
) -> None:
    names = tuple(channel.name for channel in requested)
    there = listed.channel_names
    if names and there and find_channels(names, there) != there:
        raise DatasetError(
            f"--channel names {', '.join(names)}, but most cases have other channels",
            source=root,
            detail=f"they have {', '.join(there)}",
        )


def _count_channels(
    listed: CaseListing, description: DatasetDescription
) -> int:
    """Return how many channels a case has: as many as are named, or as most cases have."""
    counts = Counter(len(row.images) for row in listed.cases)
    named = len(description.channel_names)
    if named in counts:
        return named
    return max(
        counts, key=lambda channels: (counts[channels], channels), default=1
    )


def make_provisional_spec(
    channels: int,
    labels: Mapping[int, str],
    *,
    names: Sequence[str] = (),
    ignore: int | None = None,
    dims: int = 3,
    wide: bool = False,
    label_fields: Sequence[Fields] = (),
    data: Fields | None = None,
) -> BundleSpec:
    """Return a bundle for what needs one before there is a plan.

    Args:
        channels: How many.
        labels: Value and name of each.
        names: Of the channels, where the data set has names.
        ignore: Value of unlabelled voxels (the ignore label).
        dims: Of the network.
        wide: Whether the network is nnU-Net's; the slim one otherwise.
        label_fields: The labels as the bundle has them, instead of ``labels``.
        data: The section ``data``, instead of the ignore label alone.
    """
    if len(names) < channels:
        names = [f"channel {number}" for number in range(1, channels + 1)]
    fields = list(label_fields)
    for index, (value, name) in enumerate(sorted(labels.items()), start=1):
        fields.append({"index": index, "name": name, "value": value})
    if data is None:
        data = {"ignore": None if ignore in labels else ignore}
    if wide:
        network = {"kind": "unet", "dims": dims, "channels": 32}
    else:
        network = define_slim_network(dims, [(2,) * dims] * 3)
    patch = [48] * 3 if dims == 3 else [192] * 2
    return parse_spec(
        {
            "name": "draft",
            "channels": [{"name": name} for name in names[:channels]],
            "labels": fields,
            "data": data,
            "network": network,
            "training": {"patch": patch, "optimizer": "adamw"},
        }
    )


def _find_outliers(
    fingerprint: Fingerprint,
    modalities: Sequence[str],
    label_names: Mapping[int, str],
    pictures: bool,
) -> list[Outlier]:
    """Find the cases that lie apart from the others."""
    measures = {}
    for name, case in zip(fingerprint.names, fingerprint.cases, strict=True):
        if case.measures is not None:
            measures[name] = case.measures
    return find_outliers(measures, modalities, label_names, pictures=pictures)


def _choose_apart(outliers: Iterable[Outlier]) -> frozenset[str]:
    """Return the cases whose sizes and intensities would mislead a plan."""
    misleading = (Aspect.VOXEL_SIZE, Aspect.INTENSITIES)
    return frozenset(
        outlier.case for outlier in outliers if outlier.aspect in misleading
    )


def _are_pictures(cases: Sequence[Case]) -> bool:
    """Tell whether most cases are pictures, not scans."""
    if not cases:
        return False
    pictures = Counter(_is_picture_case(case) for case in cases)
    return pictures.most_common(1)[0][0]


def _is_picture_case(case: Case) -> bool:
    files: list[Path] = []
    for part in case.scan.parts:
        files.extend(part)
    return all(is_picture(file) for file in files)


def _find_doubts(
    fingerprint: Fingerprint, names: Mapping[int, str] = NO_NAMES
) -> Iterator[str]:
    """Say what looks wrong with the data.

    Args:
        fingerprint: Of the data set.
        names: Of labels, where values alone do not say which they are.
    """
    count = len(fingerprint.cases)
    if fingerprint.apart:
        yield (
            f"{len(fingerprint.apart)} of {count} cases lie apart from the others, so the plan's "
            f"voxel size and intensities leave them out: {abbreviate(sorted(fingerprint.apart))}"
        )
    if count == 1:
        yield (
            "there is only one case: none can be held out, so nothing can be measured, and what "
            "is learned may hold for this case alone. Train with --fold none"
        )
    empty = sum(not case.labels for case in fingerprint.cases)
    if empty:
        yield f"{empty} of {count} cases have no labelled voxel"
    yield from _doubt_mask_values(fingerprint)
    if count < _MIN_CASES_TO_DOUBT:
        return
    for value in fingerprint.label_values:
        statistics = fingerprint.find_label_statistics(value)
        if len(statistics) == 1:
            label = names.get(value, f"label {value}")
            yield (
                f"{label} occurs in only 1 of {count} cases, with {statistics[0].voxels} "
                "voxels: little can be learned of it. Is it a mistake?"
            )


def _doubt_mask_values(fingerprint: Fingerprint) -> Iterator[str]:
    """Say that masks of one structure may have other values from case to case."""
    values = fingerprint.label_values
    are_masks = all(len(case.labels) < 2 for case in fingerprint.cases)
    if not are_masks or len(values) < 2 or not set(values) & _BRIGHTEST:
        return
    texts = []
    for value in values:
        holders = len(fingerprint.find_label_statistics(value))
        noun = "case" if holders == 1 else "cases"
        texts.append(f"{value} in {holders} {noun}")
    merged = ",".join(map(str, values))
    yield (
        f"each label map holds one value, but not the same one: {', '.join(texts)}. If they are "
        f"masks of one structure, plan with --labels NAME={merged}"
    )
