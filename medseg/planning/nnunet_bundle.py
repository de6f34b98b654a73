"""Drafts a bundle from the plans that nnU-Net itself has written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.bundle.schema_file import SCHEMA_BESIDE
from medseg.errors import DatasetError, MedsegError
from medseg.events import Listener, Notice, notify
from medseg.interop.nnunet.plans import read_nnunet_plans
from medseg.layouts import LISTING
from medseg.layouts.split_lists import NNUNET
from medseg.layouts.splits import relate_split
from medseg.planning.constraints import Constraints
from medseg.planning.description import DatasetDescription, read_description
from medseg.planning.from_nnunet import convert_plans


def draft_converted(
    plans_file: Path,
    file: Path,
    data: Path | None,
    constraints: Constraints,
    listeners: Sequence[Listener],
) -> dict[str, Any]:
    """Draft the content of a bundle from nnU-Net's plans; no scan is opened.

    Args:
        plans_file: The plans.
        file: The bundle's file; the path of the data is given relative to it.
        data: The raw data folder, if it is known.
        constraints: What the plan has to fit.
        listeners: Told of what is not carried over.

    Returns:
        The content, with a note for each choice.

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
    splits = plans_file.with_name(NNUNET)
    keeps_split = data is not None and splits.is_file()
    for omission in converted.omissions:
        if not (keeps_split and omission.startswith(NNUNET)):
            notify(listeners, Notice(f"not carried over: {omission}"))
    data_section: dict[str, Any] = {"format": "nnunet"}
    if description.ignore is not None:
        data_section["ignore"] = description.ignore
    if data is not None:
        data_section["root"] = os.path.relpath(
            data.resolve(), file.resolve().parent
        )
        if keeps_split:
            data_section["splits"] = relate_split(splits, data)
            notify(listeners, Notice(f"the split of {NNUNET} is kept"))
    else:
        converted.content["notes"]["data.root"] = (
            "The plans do not say where the raw data are: train with --data FOLDER"
        )
    return {"$schema": SCHEMA_BESIDE, **converted.content, "data": data_section}


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
