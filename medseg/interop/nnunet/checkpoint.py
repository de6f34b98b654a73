"""nnU-Net's checkpoints: the weights of one fold, and what else prediction needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medseg.bundle.foreign_checkpoints import read_foreign_checkpoint
from medseg.bundle.validation_messages import find_first_fault
from medseg.errors import CheckpointError
from medseg.interop.state_dicts import parse_state_dict

_WEIGHTS = "network_weights"

ShortName = Annotated[str, Field(min_length=1, max_length=200)]


class _InitArguments(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    configuration: ShortName


class _Header(BaseModel):
    """What a checkpoint says besides its weights, as far as prediction needs it."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    trainer_name: Annotated[str, Field(pattern=r"^\w{1,200}$")]
    init_args: _InitArguments
    inference_allowed_mirroring_axes: (
        Annotated[
            tuple[Annotated[int, Field(ge=0, le=2)], ...], Field(max_length=3)
        ]
        | None
    ) = None


@dataclass(frozen=True, slots=True)
class NnunetCheckpoint:
    """What one fold learned.

    Attributes:
        file: Where it stands.
        trainer: nnU-Net's trainer, by name.
        configuration: Which of the plans' configurations it was trained in.
        mirror_axes: Axes that predictions flip, in nnU-Net's order of axes.
        weights: By nnU-Net's names, mapped from the file.
    """

    file: Path
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]
    weights: Mapping[str, torch.Tensor]


def read_checkpoint(file: Path) -> NnunetCheckpoint:
    """Read a checkpoint without running anything in it, and without copying its weights.

    Raises:
        CheckpointError: If it is absent, damaged, forged, or no checkpoint of nnU-Net v2.
    """
    content = read_foreign_checkpoint(file)
    found = content.get(_WEIGHTS)
    # Not by truth alone: a tensor in their place has none.
    if not isinstance(found, dict) or not found:
        raise CheckpointError(
            f"is no checkpoint of nnU-Net v2: it has no {_WEIGHTS}", source=file
        )
    weights = parse_state_dict(found, file, _WEIGHTS)
    axes = content.get("inference_allowed_mirroring_axes")
    if isinstance(axes, list):
        content["inference_allowed_mirroring_axes"] = tuple(axes)
    try:
        header = _Header.model_validate(content)
    except ValidationError as error:
        where, reason = find_first_fault(error)
        raise CheckpointError(
            f"is no checkpoint of nnU-Net v2: {where} is missing or wrong",
            source=file,
            detail=reason,
        ) from error
    return NnunetCheckpoint(
        file=file,
        trainer=header.trainer_name,
        configuration=header.init_args.configuration,
        mirror_axes=header.inference_allowed_mirroring_axes or (),
        weights=weights,
    )
