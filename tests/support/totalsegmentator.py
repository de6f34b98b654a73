"""Stand-ins for TotalSegmentator's weights: its folders, with tiny networks of random outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from medseg.interop.totalsegmentator.tasks import Task, TaskPart
from support.nnunet_models import copy_model, edit_checkpoint, edit_json

TRAINER = "nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres"


def write_weights(results: Path, task: Task, part: TaskPart) -> Path:
    """Write a results folder of a part: its labels by name, its voxel size, other windows."""
    copied = copy_model("isotropic", results / part.folder)
    model = copied.rename(copied.with_name(TRAINER))
    names = [
        name or f"auxiliary_{value}"
        for value, name in enumerate(part.labels, start=1)
    ]

    def name_labels(content: dict[str, Any]) -> None:
        values = {name: value for value, name in enumerate(names, start=1)}
        content["labels"] = {"background": 0, **values}

    def plan(content: dict[str, Any]) -> None:
        content["dataset_name"] = part.folder
        configuration = content["configurations"]["3d_fullres"]
        if task.spacing_mm is not None:
            configuration["spacing"] = list(task.spacing_mm)[::-1]
        # As in TotalSegmentator, each network has the intensities of its own structures.
        content["foreground_intensity_properties_per_channel"]["0"]["mean"] += (
            part.dataset % 7
        )

    def answer(content: dict[str, Any]) -> None:
        generator = torch.Generator().manual_seed(part.dataset)
        weights = content["network_weights"]
        for level in (0, 1):
            layer = f"decoder.seg_layers.{level}"
            channels = weights[f"{layer}.weight"].shape[1]
            size = (len(names) + 1, channels, 1, 1, 1)
            # Less than background's 0 in many voxels, or later parts would cover earlier ones.
            scores = torch.randn(size, generator=generator) - 1.2
            scores[0] = 0
            weights[f"{layer}.weight"] = scores
            weights[f"{layer}.bias"] = torch.zeros(len(names) + 1)

    edit_json(model / "dataset.json", name_labels)
    edit_json(model / "plans.json", plan)
    edit_checkpoint(model, answer)
    return model
