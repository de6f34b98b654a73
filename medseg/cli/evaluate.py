"""``medseg evaluate``: scores against references, or agreement with a bundle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.answers import FAILED, open_terminal, print_json
from medseg.cli.options import AsJson
from medseg.errors import MedsegError

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.evaluation.mask_review import MaskReview
    from medseg.evaluation.results import Evaluation

_MOST_ROWS = 25
"""Masks shown in a table; the file has them all."""


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="A folder of label maps, or one.")
    ],
    references: Annotated[
        Path | None,
        typer.Argument(metavar="[REFERENCES]", help="The same by hand, or a data set with labels."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for evaluation.csv and summaries.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Bundle whose labels name the values; else every value is a label."),
    ] = None,
    ignore: Annotated[
        int | None,
        typer.Option(min=1, metavar="VALUE", help="Value of voxels that nobody annotated."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="MM", help="Tolerance of the NSD in mm; 1 unless given."),
    ] = None,
    lesions: Annotated[
        bool, typer.Option("--lesions", help="Count lesions found, missed and made up.")
    ] = False,
    versus: Annotated[
        Path | None,
        typer.Option(metavar="OTHER", help="Another method's predictions, to compare with."),
    ] = None,
    without_references: Annotated[
        bool,
        typer.Option(
            "--without-references",
            help="Judge masks from any source by how far a trained --bundle agrees.",
        ),
    ] = False,
    scans: Annotated[
        Path | None,
        typer.Option(metavar="SCANS", help="What the masks were drawn on, without references."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Without references: cpu, cuda or cuda:N; else auto."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score label maps against references: Dice, IoU, HD95, NSD and volume error.

    Without references masks are judged by their agreement with a trained bundle, worst first.

    Exit code 1: some pairs could not be scored.

    Example:

      medseg evaluate results/ Task04_Hippocampus/labelsTr -o scores

      medseg evaluate results/ labelsTr --versus nnunet/ -o scores

      medseg evaluate --without-references masks/ --bundle BUNDLE --scans scans/ -o scores
    """
    if without_references:
        if references or versus or lesions or ignore is not None or tolerance is not None:
            raise MedsegError(
                "--without-references compares with a bundle alone; leave out REFERENCES, "
                "--versus, --lesions, --ignore and --tolerance"
            )
        _judge_masks(predictions, bundle, scans, out, device or "auto", as_json)
        return
    if scans is not None or device is not None:
        raise MedsegError(
            "--scans and --device go with --without-references; with REFERENCES no network is run"
        )
    if references is None:
        raise MedsegError(
            "give REFERENCES to score against, or --without-references with --bundle and --scans"
        )
    with open_terminal() as terminal:
        from medseg.bundle.bundle import load_bundle
        from medseg.commands.evaluate import evaluate as run
        from medseg.metrics.metrics import TOLERANCE_MM

        labels = load_bundle(bundle).spec if bundle else None
        evaluation = run(
            predictions,
            references,
            out,
            labels=labels,
            ignore=ignore,
            tolerance_mm=TOLERANCE_MM if tolerance is None else tolerance,
            lesions=lesions,
            versus=versus,
            listeners=[terminal],
        )
    if as_json:
        print_json(_content(evaluation))
    else:
        print_evaluation(terminal, evaluation, out)
    raise typer.Exit(FAILED if evaluation.faults else 0)


def _judge_masks(
    predictions: Path,
    bundle: Path | None,
    scans: Path | None,
    out: Path | None,
    device: str,
    as_json: bool,
) -> None:
    if bundle is None or scans is None:
        raise MedsegError(
            "--without-references needs a trained --bundle to agree with, and --scans for it to see"
        )
    with open_terminal() as terminal:
        from medseg.commands.review import evaluate_without_references as run

        review = run(predictions, bundle, scans, out, device=device, listeners=[terminal])
    if as_json:
        print_json({"coverage": review.coverage, "cases": review.rows()})
    else:
        _print_mask_review(terminal, review, out)
    raise typer.Exit(FAILED if review.faults else 0)


def _content(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation for machines; lesions and differences where they were asked for."""
    content: dict[str, Any] = {
        "scores": evaluation.scores,
        "cases": evaluation.rows(),
        "faults": [asdict(fault) for fault in evaluation.faults],
    }
    if evaluation.lesions:
        content["lesions"] = {name: asdict(one) for name, one in evaluation.lesion_sums.items()}
    if evaluation.differences:
        content["differences"] = [asdict(one) for one in evaluation.differences]
    return content


def print_evaluation(terminal: Terminal, evaluation: Evaluation, out: Path | None) -> None:
    """Print the summary table, and name the pairs that could not be scored."""
    terminal.show_table(evaluation.summary_rows())
    for name, one in evaluation.lesion_sums.items():
        terminal.say(
            f"Lesions of {name}: {one.found} of {one.there} found, {one.false} of "
            f"{one.predicted} predicted ones false"
        )
    _print_differences(terminal, evaluation)
    for fault in evaluation.faults:
        terminal.say(f"  not scored: {fault}")
    if out is not None:
        terminal.say(f"Every case: {out / 'evaluation.csv'}")
        terminal.say(f"  page      {out / 'evaluation.html'}")


def _print_mask_review(terminal: Terminal, review: MaskReview, out: Path | None) -> None:
    """Print the masks that a bundle agrees with least, and name those it could not judge."""
    heading, *rows = review.summary_rows()
    terminal.show_table([heading, *rows[:_MOST_ROWS]], left=(0, 2))
    if len(rows) > _MOST_ROWS:
        terminal.say(f"and {len(rows) - _MOST_ROWS} more, which agree better")
    said = (
        "This bundle is not calibrated: the numbers order masks, their values can be far off."
        if review.coverage is None
        else "The order is that of Dice with the bundle's own masks, which is not calibrated. "
        "The expected Dice was calibrated on those; for other masks it can be far off."
    )
    terminal.say(said)
    flagged = len(review.to_review)
    terminal.say(f"{flagged} of {len(review.cases)} to review")
    for fault in review.faults:
        terminal.say(f"  not judged: {fault}")
    if out is not None:
        terminal.say(f"Every mask: {out / 'agreement.csv'}")


def _print_differences(terminal: Terminal, evaluation: Evaluation) -> None:
    for one in evaluation.differences:
        if one.metric == "dice" and one.n:
            said = f"Dice of {one.label} minus the others': {one.mean:+.4f}"
            if one.n == 1:
                terminal.say(f"{said}, in one case")
                continue
            terminal.say(
                f"{said} ({one.interval.low:+.4f} to {one.interval.high:+.4f}), better in "
                f"{one.better} and worse in {one.worse} of {one.n} cases, p = {one.p:.2g}"
            )
