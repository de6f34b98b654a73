"""What the device that will train allows: memory, and with a time budget its speed."""

from __future__ import annotations

from dataclasses import replace

import torch

from medseg._support.platform.processes import measure_memory
from medseg.errors import MedsegError
from medseg.planning.constraints import (
    NETWORKS,
    Constraints,
    parse_minutes,
)
from medseg.planning.inspection import InspectedDataset, make_provisional_spec
from medseg.training.speed import voxels_per_second

_MAX_MEMORY_GB = {True: 12.0, False: 8.0}
"""Memory planned for, with and without a GPU: larger patches bring little."""
_GPU_SHARE, _CPU_SHARE = 0.8, 0.5
"""Share of a GPU's memory, and of the free main memory, that a step may take."""


def make_constraints(
    device: torch.device,
    memory_gb: float | None,
    budget: str | None,
    class_weights: str | None,
    network: str = "auto",
) -> Constraints:
    """Return what every bundle has to fit.

    Raises:
        MedsegError: If an option has no valid value.
    """
    if class_weights not in (None, "balanced"):
        raise MedsegError(
            f"--class-weights takes 'balanced', got '{class_weights}'; write weights of your own "
            "into training.class_weights of the bundle"
        )
    if network not in NETWORKS:
        choices = ", ".join(NETWORKS)
        raise MedsegError(f"--network takes {choices}; got '{network}'")
    return Constraints(
        dims=None,
        on_gpu=device.type == "cuda",
        memory_gb=memory_gb or _measure_memory_gb(device),
        budget_minutes=parse_minutes(budget) if budget else None,
        balanced=class_weights == "balanced",
        network=network,
    )


def adapt_constraints(
    constraints: Constraints, dataset: InspectedDataset, device: torch.device
) -> Constraints:
    """Adapt constraints to a data set; with a time budget, measure how fast the device trains."""
    if dataset.pictures:
        constraints = replace(constraints, dims=2)
    if constraints.budget_minutes is None:
        return constraints
    fingerprint = dataset.fingerprint
    labels = {
        value: f"label {value}" for value in fingerprint.label_values
    } or {1: "label"}
    smallest = make_provisional_spec(
        fingerprint.channel_count,
        labels,
        dims=constraints.dims or 3,
        wide=constraints.on_gpu,
    )
    return replace(
        constraints, voxels_per_second=voxels_per_second(smallest, device)
    )


def _measure_memory_gb(device: torch.device) -> float:
    """Return how much memory of a device a training step may take, in GB."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        _, total = torch.cuda.mem_get_info(device)
        share = _GPU_SHARE * total
    else:
        share = _CPU_SHARE * measure_memory().available
    return float(min(share / 1e9, _MAX_MEMORY_GB[on_gpu]))
