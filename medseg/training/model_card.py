"""The model card: what a trained bundle says of itself to people, in Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from statistics import fmean, stdev

from medseg.bundle.spec import BundleSpec, OriginSpec, QualityFinding
from medseg.labels import LabelSet
from medseg.metrics.statistics import Statistic
from medseg.names import format_minutes
from medseg.quality.calibration import MIN_CLEAN_RESULTS
from medseg.training.keep_largest import explain
from medseg.training.leakage import explain_known_to_parent
from medseg.training.lineage import Lineage
from medseg.training.markdown import bullets, escape, table
from medseg.training.report import FoldSummary, Statistics, TrainingReport
from medseg.training.speed_card import SPEED, describe_speed

_METRIC_TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95": "HD95 (mm)",
    "nsd": "NSD at 1 mm",
}
_LIMITS = (
    "Scores were measured on held-out cases of the same source as the training data. Other "
    "scanners, protocols and patients can give worse results. Look at every result."
)
_UNKNOWN = "–"

# A slash behind a letter, as in T1/T2, is none of a path.
_PATH = re.compile(r"(?<!\w)[\\/~]\S|\b[A-Za-z]:[\\/]|\.\.[\\/]")


def model_card(spec: BundleSpec, report: TrainingReport) -> str:
    """Return the model card as Markdown.

    Args:
        spec: The bundle, with what training decided.
        report: What the training run found.
    """
    sections = [
        f"# {spec.name}",
        escape(spec.description) or "No description was given.",
        "## Intended use",
        escape(spec.intended_use),
        "## Input and output",
        bullets(_describe_input(spec)),
        "## Training",
        bullets(_describe_training(spec, report)),
        *_lineage_section(report.lineage),
        "## Results",
        *_results_section(report),
        *_postprocessing_section(spec, report),
        "## Quality estimates",
        describe_quality(report.quality, report.validation_cases),
        *_describe_range(spec, report),
        *_speed_section(report),
        *[stage.card for stage in report.stages if stage.card],
        "## Limits",
        _LIMITS,
        "## Provenance",
        bullets(_describe_provenance(spec, report)),
    ]
    return "\n\n".join(sections) + "\n"


def imported_model_card(
    spec: BundleSpec, origin: OriginSpec, remarks: Sequence[str] = ()
) -> str:
    """Return the model card of a model that other software trained, as Markdown.

    Args:
        spec: The bundle.
        origin: Where its weights come from.
        remarks: What a person should know of how it segments here.
    """
    files = [
        f"{escape(name)}: SHA-256 `{digest}`"
        for name, digest in origin.files.items()
    ]
    provenance = [
        f"Software: {escape(origin.software)}",
        f"Model: {escape(origin.model)}",
        f"Data set: {escape(origin.dataset)}",
        f"Licence of the weights: {escape(origin.licence)}",
        f"Imported with {escape(origin.imported_with)}",
        *files,
    ]
    sections = [
        f"# {spec.name}",
        escape(spec.description) or "No description was given.",
        "## Intended use",
        escape(spec.intended_use),
        "## Input and output",
        bullets(_describe_input(spec)),
        "## Training",
        f"Trained by {escape(origin.software)}, not by medseg, which knows nothing of its data.",
        "## Results",
        "Nothing was measured by medseg. Look at every result.",
        "## Quality estimates",
        describe_quality(None, 0),
        "## Limits",
        _LIMITS,
        bullets([escape(remark) for remark in remarks]),
        "## Provenance",
        bullets(provenance),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def describe_bundle(spec: BundleSpec) -> str:
    """Return what a bundle takes and gives, as Markdown, for a page that many people see.

    A description that holds a path is left out: it may name a person.
    """
    description = "" if _PATH.search(spec.description) else spec.description
    sections = [escape(description), bullets(_describe_input(spec))]
    return "\n\n".join(section for section in sections if section)


def _describe_input(spec: BundleSpec) -> list[str]:
    channels = []
    for channel in spec.channels:
        channels.append(f"{channel.name} ({channel.modality})")
    labels = []
    for label in spec.label_set:
        labels.append(f"{label.index} {label.name}")
    lines = [
        f"Channels: {escape(', '.join(channels))}",
        f"Network's grid: {_describe_spacing(spec.preprocessing.spacing_mm)}",
        f"Labels: {escape(', '.join(labels))}",
    ]
    if spec.label_set.has_regions:
        lines.append(_describe_regions(spec.label_set))
    lines.append("The label map lies on the scan's own grid.")
    return lines


def _describe_spacing(spacing: Sequence[float | None] | None) -> str:
    if not spacing:
        return "the scan's own grid"
    axes = []
    for mm in spacing:
        axes.append("own" if mm is None else f"{mm:g}")
    return " × ".join(axes) + " mm"


def _describe_regions(labels: LabelSet) -> str:
    descriptions = []
    for region in labels.regions:
        names = [labels[index - 1].name for index in region.labels]
        members = " + ".join(names)
        shown_as = labels[region.paints - 1].name
        description = f"{members}; shown as {shown_as} where no later one is"
        descriptions.append(f"{region.name} ({description})")
    listed = escape("; ".join(descriptions))
    return f"Regions, which overlap, in the order of decoding: {listed}"


def _describe_training(spec: BundleSpec, report: TrainingReport) -> list[str]:
    training = spec.training
    sizes = [str(size) for size in training.patch]
    patch = " × ".join(sizes)
    lines = [
        _describe_cases(report),
        f"{_describe_length(spec, report)} of {training.batch_size} patches of {patch} voxels, "
        f"seed {training.seed}",
        _describe_best_steps(report),
    ]
    if spec.data.ignored:
        codes = ", ".join(map(str, spec.data.ignored))
        lines.append(
            f"Voxels with the value {codes} in the label files were ignored: nothing "
            "was learned from them, and no score counts them"
        )
    return lines


def _describe_cases(report: TrainingReport) -> str:
    if report.folds:
        return (
            f"{report.training_cases} cases in {len(report.folds)} folds; a network was trained "
            "for each fold, on the others. A result is made from the mean of all networks' scores"
        )
    fold = "none" if report.fold is None else f"fold {report.fold}"
    held_out = f"{report.validation_cases} held out ({fold})"
    return f"{report.training_cases} cases; {held_out}"


def _describe_length(spec: BundleSpec, report: TrainingReport) -> str:
    minutes = spec.training.budget_minutes
    if report.folds and minutes is not None:
        # Each fold has its own number of steps.
        budget = format_minutes(minutes)
        return f"As many steps as fit into {budget} for each fold,"
    return f"{spec.training.steps} steps"


def _describe_best_steps(report: TrainingReport) -> str:
    if not report.folds:
        return f"Weights of step {report.best_step}"
    steps = []
    for fold in report.folds:
        steps.append(f"{fold.best_step} (fold {fold.fold})")
    return f"Weights of steps {', '.join(steps)}"


def _lineage_section(lineage: Lineage | None) -> list[str]:
    if lineage is None:
        return []
    parent = escape(f"{lineage.name} {lineage.version}")
    if lineage.run_id:
        run_id = escape(lineage.run_id)
        parent += f", run `{run_id}`"
    section = ["## Fine-tuned from", f"{parent}, weights `{lineage.weights}`"]
    if lineage.decisions:
        decisions = [escape(decision) for decision in lineage.decisions]
        section.append(bullets(decisions))
    return section


def _results_section(report: TrainingReport) -> list[str]:
    if not report.validation_cases:
        return ["No case was held out, so nothing was measured."]
    note = f"Mean ± standard deviation over {report.validation_cases} held-out cases."
    if report.known_to_parent:
        known = explain_known_to_parent(report.known_to_parent)
        note += f" Beware: {known}."
    if not report.folds:
        return [results_table(report.statistics), note]
    note += (
        " Each case was scored by the one network that did not see it; the mean of all networks, "
        "which users get, cannot be scored on these cases."
    )
    folds_note = (
        "Mean ± standard deviation: over the cases of each fold, and in the last row over the "
        "means of the folds."
    )
    folds_table = table(cross_validation_rows(report.folds))
    return [results_table(report.statistics), note, folds_table, folds_note]


def results_table(statistics: Statistics) -> str:
    """Return the table of scores per label as Markdown."""
    metrics = [metric for metric in _METRIC_TITLES if metric in statistics]
    labels = next(iter(statistics.values())).keys()
    titles = [_METRIC_TITLES[metric] for metric in metrics]
    rows = [["label", *titles]]
    for label in labels:
        row = [label]
        for metric in metrics:
            statistic = statistics[metric][label]
            row.append(_format_statistic(statistic))
        rows.append(row)
    return table(rows)


def cross_validation_rows(folds: Sequence[FoldSummary]) -> list[list[str]]:
    """Return the table of a cross-validation, its heading first: Dice per fold and label."""
    labels = list(folds[0].dice)
    titles = [f"Dice {label}" for label in labels]
    rows = [["fold", "held-out cases", *titles]]
    for fold in folds:
        row = [str(fold.fold), str(fold.cases)]
        for label in labels:
            row.append(_format_statistic(fold.dice[label]))
        rows.append(row)
    total = sum(fold.cases for fold in folds)
    last_row = ["all", str(total)]
    for label in labels:
        means = [fold.dice[label].mean for fold in folds]
        last_row.append(_format_spread(means))
    rows.append(last_row)
    return rows


def _format_spread(values: Sequence[float]) -> str:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return _UNKNOWN
    mean = fmean(known)
    if len(known) == 1:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {stdev(known):.3f}"


def _format_statistic(statistic: Statistic) -> str:
    if math.isnan(statistic.mean):
        return _UNKNOWN
    if math.isnan(statistic.sd):
        return f"{statistic.mean:.3f}"
    return f"{statistic.mean:.3f} ± {statistic.sd:.3f}"


def _postprocessing_section(
    spec: BundleSpec, report: TrainingReport
) -> list[str]:
    """Describe of which labels only the largest connected component is kept, and why."""
    requested = spec.inference.keep_largest
    finding = report.keep_largest
    if finding is not None and finding.labels:
        decisions = [escape(sentence) for sentence in explain(finding)]
        reason = (
            "Results keep only the largest connected component of a label where that gave the "
            "held-out cases the better mean Dice. The scores above are those of results as "
            "decided; since the same cases decided, a gain is slightly too good."
        )
        return ["## Postprocessing", reason, bullets(decisions)]
    if not requested:
        return []
    names = escape(", ".join(requested))
    return [
        "## Postprocessing",
        f"Only the largest connected component of {names} is kept, as requested.",
    ]


def describe_quality(finding: QualityFinding | None, clean_results: int) -> str:
    """Say what estimates of quality mean, and how certain they are.

    Args:
        finding: What they were learned from; ``None`` where there was too little.
        clean_results: How many of the results were of scans as they came.
    """
    if finding is None:
        return (
            f"Too few cases were held out (fewer than {MIN_CLEAN_RESULTS}), so the expected Dice "
            "of a result is not calibrated: it serves to rank results, and its value can be far "
            "off."
        )
    has_copies = finding.case.cases > clean_results
    kinds = "clean and corrupted on purpose" if has_copies else "all clean"
    return (
        "Each result comes with an expected Dice and a lower bound, learned from "
        f"{finding.case.cases} held-out results, {kinds}. For scans like the held-out ones the "
        f"true Dice is at or above the bound in {100 * finding.coverage:.0f} % of cases; for "
        "other kinds of scans in fewer. Results with an expected Dice below "
        f"{finding.review_below:.3f} are flagged for review: "
        f"{100 * finding.review_share:.0f} % of the clean held-out ones."
    )


def _describe_range(spec: BundleSpec, report: TrainingReport) -> list[str]:
    """Say what results are compared with, and what they are worth where data are made up."""
    sentences = []
    if spec.data.made_up or report.made_up:
        sentences.append(
            "The training data are made up: results say nothing of patients, and "
            "what they are worth is shown in words, not as a number."
        )
    if report.validated is not None:
        sentences.append(
            "Results outside what the bundle was validated on (body part, voxel size, field of "
            "view, intensities, volumes and forms of labels) are flagged for review; the range is "
            f"that of {report.validated.cases} cases."
        )
    return sentences


def _describe_provenance(spec: BundleSpec, report: TrainingReport) -> list[str]:
    lines = [
        f"Authors: {escape(spec.authors)}",
        f"Licence: {escape(spec.licence)}",
        f"Data fingerprint: `{report.content_hash}`",
    ]
    for name, value in report.provenance.items():
        if value:
            lines.append(f"{name}: {value}")
    for reference in spec.references:
        lines.append(f"Reference: {escape(reference)}")
    return lines


def _speed_section(report: TrainingReport) -> list[str]:
    """Describe which settings were tried on held-out cases, and what came of it."""
    text = describe_speed(report.speed, report.speed_unknown)
    return [f"## {SPEED}", text] if text else []
