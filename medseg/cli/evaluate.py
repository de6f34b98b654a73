"""``medseg evaluate``: scores against references."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.options import AsJson, Log, Quiet, TrustValues
from medseg.cli.output import (
    START_OVER,
    end_command,
    open_terminal,
    print_json,
)
from medseg.errors import MedsegError

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.evaluation.results import Evaluation
    from medseg.metrics.comparison import Difference

_INSTEAD = "medseg review MASKS SCANS BUNDLE"


def _define_former_option(option: str) -> Any:
    """Return a hidden option of 0.1.0 that ``medseg review`` has taken over."""
    return typer.Option(option, hidden=True)


def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS",
            help="A folder of label maps, or a single one.",
        ),
    ],
    references: Annotated[
        Path | None,
        typer.Argument(
            metavar="REFERENCES",
            help="The references: a folder of label maps, a single one, or a data set.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The folder to write evaluation.csv and summaries to.",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="A bundle whose labels name the values. Default: every value is a label."
        ),
    ] = None,
    ignore: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="VALUE",
            help="Value of unlabelled voxels (ignore label).",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="MM",
            help="Tolerance of the NSD in mm. Default: 1.",
        ),
    ] = None,
    lesions: Annotated[
        bool,
        typer.Option(
            "--lesions", help="Count lesions found, missed and made up."
        ),
    ] = False,
    versus: Annotated[
        Path | None,
        typer.Option(
            metavar="OTHER",
            help="Another method's predictions to compare with.",
        ),
    ] = None,
    trust_values: TrustValues = False,
    without_references: Annotated[
        bool, _define_former_option("--without-references")
    ] = False,
    scans: Annotated[Path | None, _define_former_option("--scans")] = None,
    device: Annotated[str | None, _define_former_option("--device")] = None,
    log: Log = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score label maps against references: Dice, HD95, NSD and more.

    Exit code 1: some pairs could not be scored.

    Examples:

      medseg evaluate results/ Task04_Hippocampus/labelsTr -o scores

      medseg evaluate results/ labelsTr --versus nnunet/ -o scores
    """
    if without_references or scans is not None or device is not None:
        raise MedsegError(f"to judge masks without references, use {_INSTEAD}")
    if references is None:
        raise MedsegError(
            f"REFERENCES is missing; to judge masks without, use {_INSTEAD}"
        )
    with open_terminal(
        START_OVER, quiet=quiet, log=log, command="evaluate"
    ) as terminal:
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
            trust_values=trust_values,
            listeners=terminal.listeners,
        )
    if as_json:
        print_json(_to_json(evaluation))
    else:
        print_evaluation(terminal, evaluation, out)
    count = len(evaluation.cases)
    summary = f"{count} cases scored, {len(evaluation.faults)} not"
    end_command(terminal, summary, is_whole=not evaluation.faults)


def _to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation for machines; lesions and differences if they were asked for."""
    content: dict[str, Any] = {
        "scores": evaluation.scores,
        "cases": evaluation.rows(),
        "faults": [asdict(fault) for fault in evaluation.faults],
    }
    if evaluation.lesions:
        lesions = evaluation.lesion_sums
        content["lesions"] = {
            name: asdict(counts) for name, counts in lesions.items()
        }
    if evaluation.differences:
        content["differences"] = [
            asdict(difference) for difference in evaluation.differences
        ]
    return content


def print_evaluation(
    terminal: Terminal, evaluation: Evaluation, out: Path | None
) -> None:
    """Print the summary table, and name the pairs that could not be scored."""
    from medseg.evaluation.files import use_titles

    if not evaluation.cases:
        terminal.say("No pair could be scored:")
        terminal.say_faults("not scored", evaluation.faults)
        return
    evaluation = use_titles(evaluation)
    terminal.show_table(evaluation.summary_rows())
    for name, counts in evaluation.lesion_sums.items():
        terminal.say(
            f"Lesions of {name}: {counts.found} of {counts.there} found, {counts.false} of "
            f"{counts.predicted} predicted ones false"
        )
    for difference in evaluation.differences:
        if difference.metric == "dice" and difference.n:
            terminal.say(_describe_difference(difference))
    terminal.say_faults("not scored", evaluation.faults)
    if out is not None:
        terminal.say(f"All cases: {out / 'evaluation.csv'}")
        terminal.say(f"  page     {out / 'evaluation.html'}")


def _describe_difference(difference: Difference) -> str:
    text = (
        f"Dice of {difference.label} minus the others': {difference.mean:+.4f}"
    )
    if difference.n == 1:
        return f"{text}, in one case"
    interval = difference.interval
    return (
        f"{text} ({interval.low:+.4f} to {interval.high:+.4f}), better in {difference.better} and "
        f"worse in {difference.worse} of {difference.n} cases, p = {difference.p:.2g}"
    )
