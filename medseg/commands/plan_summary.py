"""What was planned, in a few sentences for people."""

from __future__ import annotations

from dataclasses import asdict
from statistics import fmean
from typing import Any

from medseg.bundle.spec import BundleSpec
from medseg.names import format_minutes
from medseg.planning.plan import Plan
from medseg.planning.training_cost import TrainingCost


def describe_plan(plan: Plan) -> list[str]:
    """Return what a data set was taken for and what was planned for it, a line each."""
    lines = [f"recognised: {sentence}" for sentence in plan.recognised]
    cases = len(plan.fingerprint.cases)
    origin = _count(cases, "case") if cases else "nnU-Net's plans"
    lines += _describe_spec(plan.spec, origin)
    if plan.cost is not None:
        lines += describe_cost(plan.cost, plan.spec)
    return lines


def describe_cost(cost: TrainingCost, spec: BundleSpec) -> list[str]:
    """Return how long training takes, and how much memory; what is estimated is called so."""
    timed = cost.step_seconds
    spread = f"{min(timed):.3g} to {max(timed):.3g} s in {len(timed)} steps"
    if len(timed) == 1:
        spread = "one was timed, so its spread is not known"
    lines = [
        f"measured on {cost.device}: a step takes {fmean(timed):.3g} s ({spread})"
    ]
    if cost.too_short:
        lines.append(f"the time budget is too short: {cost.too_short}")
    elif spec.training.budget_minutes:
        budget = format_minutes(spec.training.budget_minutes)
        lines.append(
            f"about {cost.steps} steps fit into {budget} beside "
            f"{_count(cost.validations, 'validation')} and what comes before and after"
        )
    else:
        lines.append(_describe_length(cost))
    size = f"{cost.memory_bytes / 1e9:.2g} GB"
    if cost.device.startswith("cuda"):
        lines.append(f"measured: the steps need {size} of the GPU's memory")
    else:
        lines.append(f"measured: memory grew by {size} during the steps")
    return lines


def _describe_length(cost: TrainingCost) -> str:
    low, high = cost.seconds_range
    parts = [_count(cost.steps, "step")]
    if cost.held_out:
        each = format_time(cost.validation_seconds)
        parts.append(f"{_count(cost.validations, 'validation')} of {each} each")
    parts.append("preprocessing, and scoring at the end")
    return (
        f"training takes about {format_time(cost.seconds)}, estimated from that "
        f"({format_time(low)} to {format_time(high)} by the spread of the steps): "
        f"{', '.join(parts)}"
    )


def format_time(seconds: float) -> str:
    """Return a time for people.

    Examples:
        >>> format_time(42), format_time(600), format_time(9000), format_time(200_000)
        ('42 s', '10 min', '2.5 h', '56 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"


def list_plan_fields(plan: Plan) -> dict[str, Any]:
    """Return what was planned for machines."""
    spec = plan.spec
    cost = plan.cost
    measured: dict[str, Any] | None = None
    if cost is not None:
        low, high = cost.seconds_range
        measured = asdict(cost)
        measured["seconds"] = cost.seconds
        measured["seconds_range"] = [low, high]
    return {
        "bundle": str(plan.file),
        "recognised": list(plan.recognised),
        "cases": len(plan.fingerprint.cases),
        "labels": [label.name for label in spec.labels],
        "regions": [region.name for region in spec.regions],
        "dims": spec.network.dims,
        "patch": list(spec.training.patch),
        "batch_size": spec.training.batch_size,
        "steps": spec.training.steps,
        "budget_minutes": spec.training.budget_minutes,
        "training": measured,
        "notes": dict(spec.notes),
    }


def _describe_spec(spec: BundleSpec, origin: str) -> list[str]:
    training = spec.training
    labels = ", ".join(label.name for label in spec.labels)
    lines = [f"{origin}; {_count(len(spec.labels), 'label')}: {labels}"]
    if spec.regions:
        regions = ", ".join(region.name for region in spec.regions)
        lines.append(f"{_count(len(spec.regions), 'region')}: {regions}")
    patch = " × ".join(str(size) for size in training.patch)
    schedule = f"about {training.steps} steps"
    if training.budget_minutes:
        schedule += f" in {format_minutes(training.budget_minutes)}"
    lines.append(
        f"{spec.network.dims}D, patch {patch}, batch {training.batch_size}, {schedule}"
    )
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
