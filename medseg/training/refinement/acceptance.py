"""Whether refined masks replace the coarse ones: decided on held-back cases, case by case."""

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
from medseg.networks.devices import training_precision
from medseg.networks.inferers import Autocast, window_inferer

MIN_CASES = 5
"""With fewer held-back cases an interval says nothing, and the coarse masks stay."""

_RESAMPLES = 10_000


@torch.inference_mode()
def score_coarse_and_refined(
    spec: BundleSpec, network: nn.Module, cases: Sequence[CachedCase], device: torch.device
) -> list[tuple[float, float]]:
    """Segment cases once, and score the coarse and the refined mask of each.

    Args:
        spec: The bundle.
        network: Answers coarse and refined logits, one after the other, as channels.
        cases: Held-back cases, scored on the network's grid.
        device: Where to compute.

    Returns:
        The mean Dice over labels of the coarse and of the refined mask of each case; cases with
        nothing to score are left out.
    """
    infer = Autocast(window_inferer(spec), device, training_precision(spec, device))
    network = network.to(device).eval()
    found = []
    for case in cases:
        logits = infer(case.image[None].float().to(device), network)[0]
        reference = case.label[0].to(torch.int32).cpu().numpy()
        dice = []
        for half in logits.chunk(2):
            prediction = half.max(dim=0).indices.to(torch.int32).cpu().numpy()
            scores = score_case(prediction, reference, spec.label_set, case.spacing)
            dice.append(summarise([scores])["dice"]["mean"])
        if all(math.isfinite(one) for one in dice):
            found.append((dice[0], dice[1]))
    return found


def decide_acceptance(pairs: Sequence[tuple[float, float]]) -> RefinementFinding:
    """Decide whether refined masks replace coarse ones.

    They do if their mean Dice is higher and chance is an unlikely reason: the 95 % interval of the
    gain, by bootstrap over cases, does not reach below 0. Else the coarse masks stay, so that
    switching refinement on can cost time but, on cases like these, no quality.

    Args:
        pairs: Dice of the coarse and of the refined mask of each held-back case.
    """
    gains = np.array([refined - coarse for coarse, refined in pairs])
    if not len(gains):
        return RefinementFinding(applied=False, dice_gain=0.0, interval=(0.0, 0.0), cases=0)
    drawn = np.random.default_rng(0).integers(len(gains), size=(_RESAMPLES, len(gains)))
    low, high = np.quantile(gains[drawn].mean(axis=1), [0.025, 0.975])
    gain = float(gains.mean())
    return RefinementFinding(
        applied=bool(len(gains) >= MIN_CASES and gain > 0 and low >= 0),
        dice_gain=gain,
        interval=(float(low), float(high)),
        cases=len(gains),
    )
