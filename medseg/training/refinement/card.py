"""The model card's section on refinement, and the warning about a critic that taught nothing."""

from __future__ import annotations

from medseg.bundle.spec import SEPARATES, RefinementFinding


def refinement_section(
    finding: RefinementFinding | None, critic_gap: float | None
) -> str:
    """Write the section, in Markdown.

    Args:
        finding: Whether refined masks replace the coarse ones; ``None`` without a refiner.
        critic_gap: Difference between the critic's scores of true and of made masks over the
            last quarter of its steps; ``None`` without a critic.

    Returns:
        The section with its heading; empty if there was neither.
    """
    items = []
    if finding is not None:
        items.append(_describe_decision(finding))
        if finding.cases:
            items.append(_describe_gain(finding))
    if critic_gap is not None:
        items.append(_describe_critic(critic_gap))
    if not items:
        return ""
    listed = "\n".join(f"- {item}" for item in items)
    return f"## Refinement\n\n{listed}"


def inseparable_warning(critic_gap: float) -> str:
    """Say that a critic did not tell true masks from made ones, and what to do."""
    return (
        "the critic did not tell true masks from made ones: over the last quarter of its steps "
        f"its mean scores differed by {critic_gap:.2f}, and at least {SEPARATES} is expected. The "
        "adversarial loss of this run taught nothing. Change refinement.critic, or set "
        "refinement.adversarial_weight to 0"
    )


def _describe_decision(finding: RefinementFinding) -> str:
    if finding.applied:
        return "The refined mask replaces the network's own."
    if finding.cases == 0:
        return (
            "The network's own mask is used: without held-out cases nothing shows whether the "
            "refiner improves it."
        )
    return "The network's own mask is used; the refiner did not clearly improve it."


def _describe_gain(finding: RefinementFinding) -> str:
    low, high = finding.interval
    return (
        f"Mean gain in Dice by the refiner: {finding.dice_gain:+.4f} (95 % interval {low:+.4f} to "
        f"{high:+.4f}, {finding.cases} held-out cases, paired, on the network's grid)"
    )


def _describe_critic(gap: float) -> str:
    scores = (
        f"The critic scored true masks {gap:.2f} above made ones over the last quarter of its "
        "steps"
    )
    if gap >= SEPARATES:
        return f"{scores}."
    return (
        f"{scores}, less than {SEPARATES}: it did not tell them apart, and the adversarial loss "
        "of this run taught nothing."
    )
