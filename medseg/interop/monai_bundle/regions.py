"""What ``train.json`` says where structures overlap: one mask per region instead of a label map.

Where some voxels are ignored, one channel more says which are annotated.
"""

from __future__ import annotations

from collections.abc import Sequence

from medseg.interop.monai_bundle.parts import ABOVE_ZERO, Config
from medseg.labels import LabelSet
from medseg.preprocessing.transforms import LABEL, Step


def define_region_steps(labels: LabelSet) -> list[Step]:
    """State how a label map becomes masks of regions; empty where labels exclude each other."""
    if not labels.has_regions:
        return []
    held = [list(region.labels) for region in labels.regions]
    if labels.ignore_index is not None:
        held.append(list(range(labels.classes)))
    masks = [f"mask_{place}" for place in range(len(held))]
    steps: list[Step] = [
        {
            "_target_": "CopyItemsd",
            "keys": LABEL,
            "times": len(masks),
            "names": masks,
        }
    ]
    for mask, indices in zip(masks, held, strict=True):
        steps.append(
            {"_target_": "LabelToMaskd", "keys": mask, "select_labels": indices}
        )
    return [
        *steps,
        {"_target_": "ConcatItemsd", "keys": masks, "name": LABEL},
        {"_target_": "DeleteItemsd", "keys": masks},
        {"_target_": "EnsureTyped", "keys": LABEL, "dtype": "$torch.float32"},
    ]


def define_region_loss(
    labels: LabelSet, dims: int, weights: Sequence[float] | None
) -> Config:
    """State the loss: Dice and binary cross-entropy of each region, over annotated voxels.

    Args:
        labels: The labels and their regions.
        dims: Of the network, 2 or 3.
        weights: Of each region, numbers of our own; all alike where ``None``.
    """
    shape = (-1, *(1 for _ in range(dims)))
    tensor = f"$torch.tensor({weights}, device=@device).reshape({shape})"
    config: Config = {
        "dice_loss": {"_target_": "DiceLoss", "batch": True},
        "ce_loss": {"_target_": "torch.nn.BCEWithLogitsLoss"},
        "loss": "$lambda pred, label: @dice_loss(pred.sigmoid(), label) + @ce_loss(pred, label)",
    }
    if weights is not None:
        config["dice_loss"]["weight"] = list(weights)
        config["ce_loss"]["weight"] = tensor
    if labels.ignore_index is not None:
        config["ce_loss"]["reduction"] = "none"
        config["loss"] = (
            "$lambda pred, label: "
            "@dice_loss(pred.sigmoid() * label[:, -1:], label[:, :-1]) + "
            "(@ce_loss(pred, label[:, :-1]) * label[:, -1:]).sum() / "
            f"(label[:, -1:].sum().clamp(min=1) * {labels.channels})"
        )
    return config


def define_region_scoring(labels: LabelSet) -> list[Step]:
    """State how logits and masks become what the metric compares; empty without regions."""
    if not labels.has_regions:
        return []
    there: Step = {
        "_target_": "AsDiscreted",
        "keys": "pred",
        "threshold": ABOVE_ZERO,
    }
    if labels.ignore_index is None:
        return [there]
    known = "annotated"
    return [
        there,
        {"_target_": "CopyItemsd", "keys": LABEL, "times": 1, "names": known},
        _keep_channels(known, labels.channels, 1),
        _keep_channels(LABEL, 0, labels.channels),
        {"_target_": "MaskIntensityd", "keys": "pred", "mask_key": known},
    ]


def _keep_channels(key: str, start: int, length: int) -> Step:
    """State that only some channels are kept."""
    kept = {"_target_": "torch.narrow", "_mode_": "callable", "dim": 0}
    return {
        "_target_": "Lambdad",
        "keys": key,
        "func": {**kept, "start": start, "length": length},
    }
