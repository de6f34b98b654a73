"""A model that nnU-Net trained, as the bundle that segments as it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medseg.interop.nnunet.network import describe_network
from medseg.interop.nnunet.plans import NnunetPlans
from medseg.interop.nnunet.preprocessing import (
    describe_preprocessing,
    describe_windows,
)
from medseg.planning.description import DatasetDescription, make_bundle_name
from medseg.planning.from_nnunet import convert_channels, convert_labels


def describe_model(
    plans: NnunetPlans,
    description: DatasetDescription,
    mirror_axes: Sequence[int],
) -> dict[str, Any]:
    """Return the ``bundle.json``, lists as tuples, that segments as a model of nnU-Net does.

    Args:
        plans: What it was planned as.
        description: What its ``dataset.json`` says.
        mirror_axes: Axes that its predictions flip, in nnU-Net's order.

    Raises:
        DatasetError: If the labels are not named, or channels and plans differ.
        MedsegError: If medseg cannot compute such a model; says why.
    """
    name = plans.dataset_name or description.name
    content: dict[str, Any] = {
        "name": make_bundle_name(name),
        **description.list_header_fields(),
        "channels": tuple(convert_channels(plans, description)),
        "labels": tuple(convert_labels(description)),
        "preprocessing": describe_preprocessing(plans),
        "network": describe_network(plans),
        "training": {
            "patch": plans.configuration.patch_size,
            "batch_size": plans.configuration.batch_size,
            "foreground_share": 0.33,
        },
        "inference": describe_windows(),
    }
    if description.named_regions:
        content["regions"] = tuple(description.describe_regions())
    if description.ignore is not None:
        content["data"] = {"ignore": description.ignore}
    axes = tuple(sorted(mirror_axes))
    if axes != tuple(range(plans.dims)):
        # nnU-Net mirrors in training as in prediction; some labels tell left from right.
        content["training"]["augmentation"] = {"mirror_axes": axes}
    if axes:
        content["inference"]["mirror"] = True
        content["inference"]["mirror_axes"] = axes
    return content
