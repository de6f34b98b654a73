"""The way back through a bundle's preprocessing, by MONAI itself: what ours is compared with."""

from __future__ import annotations

import monai.transforms
import torch
from monai.data import MetaTensor

from medseg.preprocessing.case_input import Preprocessing
from medseg.preprocessing.transforms import IMAGE


def invert(
    preprocessing: Preprocessing, prediction: torch.Tensor, image: MetaTensor
) -> torch.Tensor:
    """Bring class scores from the network's grid back to the scan's, by linear interpolation.

    Args:
        preprocessing: The chain.
        prediction: Scores, ``(classes, x, y, z)``, on the grid of ``image``.
        image: What the chain made of the scan.

    Returns:
        Scores on the scan's own grid, ``(classes, i, j, k)``. Voxels that preprocessing cut
        away score 0 for every class.
    """
    if not image.applied_operations:
        return prediction  # a picture was never moved
    inverse = monai.transforms.Invertd(
        keys="pred",
        transform=preprocessing.chain,
        orig_keys=IMAGE,
        nearest_interp=False,
        to_tensor=True,
    )
    on_scan = inverse(
        {"pred": MetaTensor(prediction, meta=image.meta), IMAGE: image}
    )
    return on_scan["pred"].as_tensor()
