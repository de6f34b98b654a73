"""Drafts the content of a bundle, choice by choice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.bundle.schema_file import SCHEMA_BESIDE
from medseg.datasets.cases import Case
from medseg.errors import MedsegError
from medseg.names import abbreviate
from medseg.planning.constraints import Constraints, Notes
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.grid import choose_grid
from medseg.planning.inspection import InspectedDataset
from medseg.planning.intensity import choose_intensity
from medseg.planning.mask_labels import find_key
from medseg.planning.network import choose_network, compute_max_patch_voxels
from medseg.planning.schedule import choose_training

_FOLDS = 5
_MIN_CASES_IN_ONE_COMPONENT = 20
"""Cases from which on "always one connected component" is believed."""
_MAX_NAMED = 20


def draft_bundle(
    dataset: InspectedDataset, file: Path, constraints: Constraints
) -> dict[str, Any]:
    """Draft the content of ``bundle.json``, choice by choice.

    Args:
        dataset: The data set.
        file: The bundle's file; the path of the data is given relative to it.
        constraints: What the plan has to fit.

    Returns:
        The content, with a note for each choice.

    Raises:
        DatasetError: If the cases have other channels than were requested.
        MedsegError: If a constraint does not go with the data.
    """
    notes: Notes = {}
    description, fingerprint = dataset.description, dataset.fingerprint
    pictures = dataset.pictures
    channels = description.describe_channels(fingerprint, pictures, notes)
    labels = description.describe_labels(fingerprint, notes)
    regions = description.describe_regions()
    if regions and constraints.balanced:
        raise MedsegError(
            "--class-weights balanced weighs labels by their volumes, but this data set has "
            "regions, which overlap; write training.class_weights by hand"
        )
    data = _draft_data(dataset, file, notes)
    classes = len(regions) or len(labels) + 1
    patch_voxels = compute_max_patch_voxels(
        constraints, constraints.dims or 3, classes
    )
    grid = choose_grid(fingerprint, constraints, pictures, patch_voxels, notes)
    network = choose_network(grid, constraints, notes, classes)
    training = choose_training(fingerprint, network, labels, constraints, notes)
    preprocessing = choose_intensity(fingerprint, channels, notes)
    if pictures:
        preprocessing["input"] = "picture"
    else:
        preprocessing["spacing_mm"] = grid.spacing_mm
    content: dict[str, Any] = {
        "$schema": SCHEMA_BESIDE,
        "name": description.name,
        **description.list_header_fields(),
        "channels": channels,
        "labels": labels,
    }
    if regions:
        content["regions"] = regions
    content |= {
        "data": data,
        "preprocessing": preprocessing,
        "network": network.make_section(),
        "training": training,
    }
    # A component may be the labelled part of several; of regions every component is kept.
    if "ignore" not in data and not regions:
        content["inference"] = _draft_inference(fingerprint, labels, notes)
    content["notes"] = notes
    return content


def _draft_data(
    dataset: InspectedDataset, file: Path, notes: Notes
) -> dict[str, Any]:
    """Say where the data are, which voxels are unlabelled, and how cases are split into folds."""
    data: dict[str, Any] = {
        "root": os.path.relpath(dataset.root.resolve(), file.resolve().parent),
        **dataset.reading,
    }
    if dataset.reading and dataset.recognised:
        notes["data.format"] = "; ".join(dataset.recognised)
    cases = _usable_cases(dataset)
    groups = {case.group for case in cases}
    if all(case.fold is not None for case in cases):
        notes["data.folds"] = (
            "The list of cases, its folders or a split name the folds"
        )
    elif len(groups) < _FOLDS:
        data["folds"] = max(2, len(groups))
        notes["data.folds"] = _explain_few_folds(len(groups))
    if len(groups) < len(cases):
        notes["data.group_by"] = (
            f"{len(cases)} cases of {len(groups)} groups in the list; a group stays in one fold"
        )
    mask_labels = dataset.description.mask_labels
    if mask_labels is not None:
        return data | mask_labels.list_data_fields()
    ignore = dataset.description.ignore
    if ignore is not None:
        data["ignore"] = ignore
        notes["data.ignore"] = (
            "The data set calls this value 'ignore': these voxels are unlabelled, so nothing is "
            "learned from them, and they count in no score"
        )
    return data


def _usable_cases(dataset: InspectedDataset) -> list[Case]:
    bad = {fault.where for fault in dataset.fingerprint.faults}
    return [case for case in dataset.case_list.cases if case.name not in bad]


def _explain_few_folds(groups: int) -> str:
    if groups > 1:
        return f"{groups} patients or cases cannot be split into {_FOLDS} folds"
    return "One case cannot be split: train with --fold none"


def _draft_inference(
    fingerprint: Fingerprint, labels: Sequence[dict[str, Any]], notes: Notes
) -> dict[str, Any]:
    """Let held-out cases decide about keeping the largest component; note what speaks for it."""
    single = [
        label["name"]
        for label in labels
        if _is_single_component(fingerprint, label)
    ]
    reason = (
        "The held-out cases of the training run decide, label by label, whether the largest "
        "connected component alone has the better Dice"
    )
    if single:
        reason += (
            f". One component in each of the {len(fingerprint.cases)} cases: "
            f"{abbreviate(single, _MAX_NAMED)}"
        )
    notes["inference.keep_largest"] = reason
    return {"keep_largest": None}


def _is_single_component(
    fingerprint: Fingerprint, label: dict[str, Any]
) -> bool:
    """Tell whether a label is one connected component in every one of many cases."""
    statistics = fingerprint.find_label_statistics(find_key(label))
    if len(statistics) < _MIN_CASES_IN_ONE_COMPONENT:
        return False
    return all(case.components == 1 for case in statistics)
