"""What people are told of a decision on the speed: in sentences, and in a model card."""

from __future__ import annotations

from medseg.bundle.spec import SpeedFinding
from medseg.training.markdown import bullets, table

SPEED = "Speed on a CPU"
"""The heading of the section."""

_ONE_OVERLAP = (
    "No smaller overlap of windows was tried: this needs at least five held-out cases that take "
    "fewer windows with it, and enough time."
)


def describe_finding(finding: SpeedFinding) -> list[str]:
    """Say what was decided, one sentence each."""
    sentences = []
    for speed in ("balanced", "fast"):
        setting = finding.get_setting(speed)
        if setting is None:
            sentences.append(
                f"{speed}: as exact, since none was faster and as good"
            )
            continue
        (trial,) = (each for each in finding.trials if each.setting == setting)
        sentences.append(
            f"{speed}: {setting.name} ({1 / trial.relative_time:.1f} times as fast as exact; Dice "
            f"{trial.dice:.4f}, {trial.dice_change:+.4f} on {finding.cases} held-out cases)"
        )
    return sentences


def describe_speed(finding: SpeedFinding | None, unknown: str = "") -> str:
    """Return the text of the section; empty if nothing is known.

    Args:
        finding: What was decided.
        unknown: Why nothing was.
    """
    if finding is None:
        if not unknown:
            return ""
        return f"Every speed is that of `exact`: none was tried, as {unknown}."
    rows = [["setting", "Dice", "change", "worst label", "agreement", "time"]]
    rows.append(["exact", f"{finding.dice:.4f}", "", "", "1", "1"])
    for trial in finding.trials:
        rows.append(
            [
                trial.setting.name,
                f"{trial.dice:.4f}",
                f"{trial.dice_change:+.4f}",
                f"{trial.worst_change:+.4f}",
                f"{trial.agreement:.4f}",
                f"{trial.relative_time:.2f}",
            ]
        )
    legend = (
        f"Tried on {finding.cases} held-out cases, against `exact` (fp32, as stock MONAI): mean "
        "Dice over cases and labels, its paired change, that of the label that loses most, mean "
        "Dice of the label maps to those of `exact`, and relative time."
    )
    decisions = bullets(describe_finding(finding))
    sections = [legend, table(rows), decisions]
    if len({trial.setting.overlap for trial in finding.trials}) == 1:
        sections.append(_ONE_OVERLAP)
    return "\n\n".join(sections)
