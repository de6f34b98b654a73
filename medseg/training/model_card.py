"""What a trained bundle says of itself: its model card for people, its metrics for machines."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from medseg._support.json_values import nan_to_none
from medseg.bundle.spec import (
    SEPARATES,
    BundleSpec,
    LargestFinding,
    QualityFinding,
    RefinementFinding,
)
from medseg.labels import LabelSet
from medseg.metrics.statistics import Statistic
from medseg.quality.calibration import MIN_CLEAN_RESULTS
from medseg.training.keep_largest import CaseResults, HeldOutResults, explain
from medseg.training.lineage import Lineage

_TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95": "HD95 (mm)",
    "nsd": "NSD at 1 mm",
}


@dataclass(frozen=True, slots=True)
class FoldFacts:
    """What the training of one fold of a cross-validation came to.

    Attributes:
        fold: Its number.
        cases: How many cases were held back.
        best_step: The step whose weights were kept.
        dice: Label → Dice over its held-back cases, ``mean`` among the labels.
    """

    fold: int
    cases: int
    best_step: int
    dice: Mapping[str, Statistic]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a training knows about itself.

    Attributes:
        training_cases: How many cases were learned from.
        validation_cases: How many were held back.
        fold: The fold held back, ``all``, or ``None``.
        best_step: The step whose weights were kept.
        fingerprint: Hash of the data.
        provenance: Versions and device.
        quality: What was learned about judging results; ``None`` if nothing was.
        lineage: The trained bundle it was fine-tuned from, if any.
        refinement: What validation said of the refiner, where one was trained.
        critic_gap: Between the critic's scores of true and made masks over the last quarter of
            its steps, where there was a critic.
        folds: Of a cross-validation.
        keep_largest: Of which labels results keep the largest piece alone, where held-back cases
            decided it.
    """

    training_cases: int
    validation_cases: int
    fold: int | str | None
    best_step: int
    fingerprint: str
    provenance: Mapping[str, str]
    quality: QualityFinding | None = None
    lineage: Lineage | None = None
    refinement: RefinementFinding | None = None
    critic_gap: float | None = None
    folds: Sequence[FoldFacts] = ()
    keep_largest: LargestFinding | None = None


def model_card(
    spec: BundleSpec, facts: Facts, statistics: Mapping[str, Mapping[str, Statistic]]
) -> str:
    """Return the card as Markdown.

    Args:
        spec: The bundle, as its training decided.
        facts: How it was trained.
        statistics: ``metric → label → statistic over validation cases``.
    """
    sections = [
        f"# {spec.name}",
        _plain(spec.description) or "No description was given.",
        "## Intended use",
        _plain(spec.intended_use),
        "## Input and output",
        _input(spec),
        "## Training",
        _training(spec, facts),
        *_ancestry(facts.lineage),
        "## Results",
        _results(facts, statistics),
        *_postprocessing(spec, facts),
        "## Quality estimates",
        _quality(facts.quality, facts.validation_cases),
        *_refinement(facts),
        "## Limits",
        "Scores were measured on held-back cases of the same source as the training data. Other "
        "scanners, protocols and patients can give worse results. Look at every result.",
        "## Provenance",
        _list(
            [f"Authors: {_plain(spec.authors)}", f"Licence: {_plain(spec.licence)}"]
            + [f"Data fingerprint: `{facts.fingerprint}`"]
            + [f"{name}: {value}" for name, value in facts.provenance.items() if value]
            + [f"Reference: {_plain(reference)}" for reference in spec.references]
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _plain(text: str) -> str:
    """Return text in one line that Markdown and browsers take for nothing but text."""
    text = html.escape(" ".join(text.split()), quote=False)
    text = re.sub(r"([\\`*\[\]|])", r"\\\1", text)
    return re.sub(r"^([#+=~-])", r"\\\1", text)


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _input(spec: BundleSpec) -> str:
    prep = spec.preprocessing
    channels = ", ".join(_plain(f"{one.name} ({one.modality})") for one in spec.channels)
    labels = ", ".join(_plain(f"{label.index} {label.name}") for label in spec.label_set)
    spacing = (
        " × ".join("own" if mm is None else f"{mm:g}" for mm in prep.spacing_mm) + " mm"
        if prep.spacing_mm
        else "the scan's own grid"
    )
    return _list(
        [
            f"Channels: {channels}",
            f"Network's grid: {spacing}",
            f"Labels: {labels}",
            *_regions(spec.label_set),
            "The label map lies on the scan's own grid.",
        ]
    )


def _regions(labels: LabelSet) -> list[str]:
    if not labels.has_regions:
        return []
    each = [
        f"{region.name} ({' + '.join(labels[index - 1].name for index in region.labels)}; shown as "
        f"{labels[region.paints - 1].name} where no later one is)"
        for region in labels.regions
    ]
    return [f"Regions, which overlap, in the order of painting: {_plain('; '.join(each))}"]


def _training(spec: BundleSpec, facts: Facts) -> str:
    training = spec.training
    held = f"fold {facts.fold}" if facts.fold is not None else "none"
    cases = f"{facts.training_cases} cases; {facts.validation_cases} held back ({held})"
    weights = f"Weights of step {facts.best_step}"
    if facts.folds:
        cases = (
            f"{facts.training_cases} cases in {len(facts.folds)} folds; a network was trained for "
            "each fold, on the others. A result is made from the mean of all networks' scores"
        )
        steps = ", ".join(f"{one.best_step} (fold {one.fold})" for one in facts.folds)
        weights = f"Weights of steps {steps}"
    length = f"{training.steps} steps"
    if facts.folds and training.budget_minutes is not None:  # each fold has its own number
        length = f"As many steps as fit into {training.budget_minutes:g} minutes for each fold,"
    return _list(
        [
            cases,
            f"{length} of {training.batch_size} patches of "
            f"{' × '.join(str(n) for n in training.patch)} voxels, seed {training.seed}",
            weights,
            *_partly_annotated(spec),
        ]
    )


def _partly_annotated(spec: BundleSpec) -> list[str]:
    if spec.data.ignore is None:
        return []
    return [
        f"Voxels with the value {spec.data.ignore} in the label files were annotated by nobody: "
        "nothing was learned from them, and no score counts them"
    ]


def _ancestry(lineage: Lineage | None) -> list[str]:
    if lineage is None:
        return []
    run = f", run `{_plain(lineage.run_id)}`" if lineage.run_id else ""
    parent = f"{_plain(lineage.name)} {_plain(lineage.version)}{run}, weights `{lineage.weights}`"
    decisions = [_plain(decision) for decision in lineage.decisions]
    return ["## Fine-tuned from", parent, *([_list(decisions)] if decisions else [])]


def _results(facts: Facts, statistics: Mapping[str, Mapping[str, Statistic]]) -> str:
    if not facts.validation_cases:
        return "No case was held back, so nothing was measured."
    shown = [metric for metric in _TITLES if metric in statistics]
    labels = list(next(iter(statistics.values())))
    rows = [
        "| label | " + " | ".join(_TITLES[metric] for metric in shown) + " |",
        "| --- |" + " --- |" * len(shown),
    ]
    for label in labels:
        cells = [_cell(statistics[metric][label]) for metric in shown]
        rows.append(f"| {_plain(label)} | " + " | ".join(cells) + " |")
    note = f"Mean ± standard deviation over {facts.validation_cases} held-back cases."
    return "\n".join(rows) + "\n\n" + note + _cross_validation(facts)


def _cross_validation(facts: Facts) -> str:
    if not facts.folds:
        return ""
    heading, *rows = [
        f"| {' | '.join(_plain(cell) for cell in row)} |"
        for row in cross_validation_rows(facts.folds)
    ]
    table = [heading, "| --- " * (2 + len(facts.folds[0].dice)) + "|", *rows]
    return (
        " Each case was scored by the one network that did not see it; the mean of all networks, "
        "which users get, cannot be scored on these cases.\n\n" + "\n".join(table) + "\n\n"
        "Mean ± standard deviation: over the cases of each fold, and in the last row over the "
        "means of the folds."
    )


def cross_validation_rows(folds: Sequence[FoldFacts]) -> list[list[str]]:
    """Return the table of a cross-validation, its heading first: Dice per fold and label."""
    labels = list(folds[0].dice)
    heading = ["fold", "held-back cases", *(f"Dice {label}" for label in labels)]
    rows = [
        [str(one.fold), str(one.cases), *(_cell(one.dice[label]) for label in labels)]
        for one in folds
    ]
    means = {label: [one.dice[label].mean for one in folds] for label in labels}
    over_folds = [_spread([value for value in means[la] if not math.isnan(value)]) for la in labels]
    return [heading, *rows, ["all", str(sum(one.cases for one in folds)), *over_folds]]


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "–"
    return f"{fmean(values):.3f} ± {stdev(values):.3f}"


def _postprocessing(spec: BundleSpec, facts: Facts) -> list[str]:
    """Say of which labels only the largest piece is kept, and why."""
    asked = spec.inference.keep_largest
    if facts.keep_largest is None or not facts.keep_largest.labels:
        if not asked:
            return []
        names = ", ".join(_plain(name) for name in asked)
        return ["## Postprocessing", f"Only the largest piece of {names} is kept, as asked."]
    return [
        "## Postprocessing",
        "Results keep of a label the largest connected piece alone where that gave the held-back "
        "cases the better mean Dice. The scores above are those of results as decided; since the "
        "same cases decided, a gain is slightly too good.",
        _list([_plain(sentence) for sentence in explain(facts.keep_largest)]),
    ]


def _quality(found: QualityFinding | None, clean: int) -> str:
    if found is None:
        return (
            f"Too few cases were held back (fewer than {MIN_CLEAN_RESULTS}), so the expected Dice "
            "of a result is not calibrated: it serves to order results, and its value can be far "
            "off."
        )
    kinds = "clean and corrupted on purpose" if found.case.cases > clean else "all clean"
    return (
        "Each result comes with an expected Dice and a lower bound, learned from "
        f"{found.case.cases} held-back results, {kinds}. For scans like the held-back ones the "
        f"true Dice is at or above the bound in {100 * found.coverage:.0f} % of cases; for other "
        "kinds of scans in fewer. Results with an expected Dice below "
        f"{found.review_below:.3f} are flagged for review: "
        f"{100 * found.review_share:.0f} % of the clean held-back ones."
    )


def _refinement(facts: Facts) -> list[str]:
    """Say what refinement and its critic came to, if there were any."""
    lines = []
    if facts.refinement is not None:
        found = facts.refinement
        low, high = found.interval
        lines.append(_verdict(found))
        if found.cases:
            lines.append(
                f"Mean gain in Dice by the refiner: {found.dice_gain:+.4f} (95 % interval "
                f"{low:+.4f} to {high:+.4f}, {found.cases} held-back cases, paired, on the "
                "network's grid)"
            )
    if facts.critic_gap is not None:
        lines.append(
            f"The critic scored true masks {facts.critic_gap:.2f} above made ones over the last "
            "quarter of its steps"
            + (
                "."
                if facts.critic_gap >= SEPARATES
                else f", less than {SEPARATES}: it never told them apart, and the adversarial "
                "part of this training taught nothing."
            )
        )
    return ["## Refinement", _list(lines)] if lines else []


def _verdict(found: RefinementFinding) -> str:
    if found.applied:
        return "The refined mask replaces the network's own."
    if not found.cases:
        return (
            "The network's own mask is used; no held-back case says what the refiner is good for."
        )
    return "The network's own mask is used; the refiner did not clearly improve it."


def _cell(statistic: Statistic) -> str:
    if math.isnan(statistic.mean):
        return "–"
    if math.isnan(statistic.sd):
        return f"{statistic.mean:.3f}"
    return f"{statistic.mean:.3f} ± {statistic.sd:.3f}"


def metrics_json(
    facts: Facts,
    scores: Mapping[str, Mapping[str, float]],
    outcome: CaseResults,
    validations: Sequence[tuple[int, Mapping[str, Mapping[str, float]]]],
    held_back: HeldOutResults,
) -> str:
    """Return the text of ``metrics.json``: scores of each held-back case and each validation.

    Args:
        facts: How the bundle was trained.
        scores: ``metric → label → mean`` of the weights that were kept.
        outcome: Of each held-back case, on its scan's own grid, as results are finished.
        validations: Step and ``metric → label → mean``, on the network's grid.
        held_back: The same cases in each way that might have been decided.
    """
    content = {
        "fold": facts.fold,
        "training_cases": facts.training_cases,
        "validation_cases": facts.validation_cases,
        "best_step": facts.best_step,
        "data_fingerprint": facts.fingerprint,
        "from": facts.lineage.published if facts.lineage else None,
        "scores": scores,
        **_outcome(outcome),
        "validations": [{"step": step, "scores": found} for step, found in validations],
        "provenance": dict(facts.provenance),
    }
    if facts.folds:
        content["folds"] = [asdict(one) for one in facts.folds]
    if held_back.largest is not None:
        content["undecided"] = {
            "every_piece": _outcome(held_back.as_asked),
            "largest_piece": _outcome(held_back.largest),
        }
    return json.dumps(nan_to_none(content), indent=2) + "\n"


def _outcome(outcome: CaseResults) -> dict[str, Any]:
    return {
        "cases": [
            {"case": one.case, "labels": {name: asdict(la) for name, la in one.labels.items()}}
            for one in outcome.cases
        ],
        "confidence": [asdict(sample) for sample in outcome.samples],
    }
