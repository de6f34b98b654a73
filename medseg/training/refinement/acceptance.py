"""Whether refined masks replace the coarse ones: decided on held-out cases, case by case."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from medseg.bundle.spec import BundleSpec, RefinementFinding
from medseg.datasets.cache import CachedCase
from medseg.metrics.metrics import score_case
from medseg.metrics.statistics import summarise
from medseg.networks.devices import choose_precision
from medseg.networks.inferers import CaseInferer

MIN_CASES = 5
"""With fewer held-out cases an interval says nothing, and the coarse masks stay."""

_RESAMPLES = 10_000


@torch.inference_mode()
def score_coarse_and_refined(
    spec: BundleSpec,
    network: nn.Module,
    cases: Sequence[CachedCase],
    device: torch.device,
) -> list[tuple[float, float]]:
    """Segment each case once, and score its coarse and its refined mask.

    Args:
        spec: The bundle.
        network: Gives coarse and refined logits, one after the other, as channels.
        cases: Held-out cases, scored on the network's grid.
        device: Where to compute.

    Returns:
        The mean Dice over labels of the coarse and of the refined mask of each case; cases with
        nothing to score are left out.
    """
    precision = choose_precision(spec.training.precision, device)
    infer = CaseInferer(spec, device, precision, _make_both_masks)
    network = network.to(device).eval()
    pairs = []
    for case in cases:
        image = case.image[None].float()
        coarse_mask, refined_mask = infer(image, network)
        coarse = _mean_dice(coarse_mask, case, spec)
        refined = _mean_dice(refined_mask, case, spec)
        if math.isfinite(coarse) and math.isfinite(refined):
            pairs.append((coarse, refined))
    return pairs


def _make_both_masks(logits: torch.Tensor) -> torch.Tensor:
    """Return the coarse and the refined mask, ``(2, x, y, z)`` in the host's memory."""
    masks = []
    for of_one in logits[0].chunk(2):
        # On ties, which class torch's argmax gives is not promised; max gives the first.
        mask = of_one.max(dim=0).indices
        masks.append(mask.to(torch.int32).cpu())
    return torch.stack(masks)


def _mean_dice(mask: torch.Tensor, case: CachedCase, spec: BundleSpec) -> float:
    """Return the mean Dice over labels of a mask ``(x, y, z)``."""
    prediction = mask.numpy()
    reference = case.label[0].to(torch.int32).cpu().numpy()
    scores = score_case(prediction, reference, spec.label_set, case.spacing)
    return summarise([scores])["dice"]["mean"]


def decide_acceptance(
    pairs: Sequence[tuple[float, float]],
) -> RefinementFinding:
    """Decide whether refined masks replace coarse ones.

    They do if their mean Dice is higher and chance is an unlikely reason: the 95 % interval of the
    gain, a percentile bootstrap over cases (Efron, 1979), does not reach below 0. Otherwise the
    coarse masks stay, so that refinement can cost time but, on cases like these, no quality.

    Args:
        pairs: Dice of the coarse and of the refined mask of each held-out case.
    """
    count = len(pairs)
    if count == 0:
        return RefinementFinding(
            applied=False, dice_gain=0.0, interval=(0.0, 0.0), cases=0
        )
    gains = np.array([refined - coarse for coarse, refined in pairs])
    drawn = np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))
    low, high = np.quantile(gains[drawn].mean(axis=1), [0.025, 0.975])
    gain = float(gains.mean())
    is_clear_gain = gain > 0 and low >= 0
    return RefinementFinding(
        applied=bool(count >= MIN_CASES and is_clear_gain),
        dice_gain=gain,
        interval=(float(low), float(high)),
        cases=count,
    )
