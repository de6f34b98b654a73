"""What was planned, in a few sentences for people."""

from __future__ import annotations

from medseg.bundle.spec import BundleSpec
from medseg.commands.plan import Plan


def describe_plan(plan: Plan) -> list[str]:
    """Return what a data set was taken for and what was planned for it, a line each."""
    lines = [f"recognised: {sentence}" for sentence in plan.recognised]
    cases = len(plan.fingerprint.cases)
    origin = _count(cases, "case") if cases else "nnU-Net's plans"
    lines += _describe_spec(plan.spec, origin)
    return lines


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
        schedule += f" in {training.budget_minutes:g} minutes"
    lines.append(
        f"{spec.network.dims}D, patch {patch}, batch {training.batch_size}, {schedule}"
    )
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
