"""The content of a bundle, choice by choice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.bundle.spec import SCHEMA_ID
from medseg.datasets.names import abbreviate
from medseg.errors import MedsegError
from medseg.planning.constraints import Constraints, Notes
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.grid import choose_grid
from medseg.planning.inspection import InspectedDataset
from medseg.planning.intensity import choose_intensity
from medseg.planning.network import choose_network, max_patch_voxels
from medseg.planning.schedule import choose_training

_FOLDS = 5
_ENOUGH_FOR_PIECES = 20
"""Cases from which on "always in one piece" is believed."""


def draft_bundle(seen: InspectedDataset, file: Path, wishes: Constraints) -> dict[str, Any]:
    """Make the content of ``bundle.json``, choice by choice.

    Args:
        seen: The data set.
        file: Where the bundle will lie; the data's place is told from there.
        wishes: What it has to fit.

    Returns:
        The content, with a note for each choice.

    Raises:
        DatasetError: If the cases have other channels than were asked for.
        MedsegError: If a wish does not go with the data.
    """
    notes: Notes = {}
    subject, survey, pictures = seen.subject, seen.survey, seen.pictures
    channels = subject.channels(survey, pictures, notes)
    labels = subject.labels(survey, notes)
    regions = subject.regions()
    if regions and wishes.balanced:
        raise MedsegError(
            "--class-weights balanced weighs labels by their volumes, and this data set has "
            "regions, which lie in each other; write training.class_weights by hand"
        )
    data = _data(seen, file, notes)
    classes = len(regions) or len(labels) + 1
    allowed = max_patch_voxels(wishes, wishes.dims or 3, classes)
    grid = choose_grid(survey, wishes, pictures, allowed, notes)
    shape = choose_network(grid, wishes, notes, classes)
    training = choose_training(survey, shape, labels, wishes, notes)
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


def _data(seen: InspectedDataset, file: Path, notes: Notes) -> dict[str, Any]:
    """Say where the data are, what of them is no label, and how they are split."""
    place = os.path.relpath(seen.root.resolve(), file.resolve().parent)
    data: dict[str, Any] = {"root": place}
    bad = {fault.where for fault in seen.survey.faults}
    cases = [case for case in seen.found.cases if case.name not in bad]
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
    if seen.subject.ignore is not None:
        data["ignore"] = seen.subject.ignore
        notes["data.ignore"] = (
            "The data set calls this value 'ignore': nobody annotated these voxels, so nothing is "
            "learned from them and nothing is scored on them"
        )
    return data


def _inference(
    survey: Fingerprint, labels: Sequence[dict[str, Any]], notes: Notes
) -> dict[str, Any]:
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
            f". In one piece in each of the {len(survey.cases)} cases: {abbreviate(single, 20)}"
        )
    return {"keep_largest": None}
