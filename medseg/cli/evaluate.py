"""``medseg evaluate``: scores against references."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.options import AsJson
from medseg.cli.output import FAILED, open_terminal, print_json
from medseg.errors import MedsegError

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.evaluation.results import Evaluation


def _moved(option: str) -> Any:
    """Return a hidden option of 0.1.0 that ``medseg review`` has taken over."""
    return typer.Option(option, hidden=True)


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
    without_references: Annotated[bool, _moved("--without-references")] = False,
    scans: Annotated[Path | None, _moved("--scans")] = None,
    device: Annotated[str | None, _moved("--device")] = None,
    as_json: AsJson = False,
) -> None:
    """Score label maps against references: Dice, IoU, HD95, NSD, volume error.

    Exit code 1: some pairs could not be scored.

    Examples:

      medseg evaluate results/ Task04_Hippocampus/labelsTr -o scores

      medseg evaluate results/ labelsTr --versus nnunet/ -o scores
    """
    if without_references or scans is not None or device is not None:
        raise MedsegError(
            "masks without references are now reviewed by another command: "
            "medseg review MASKS SCANS BUNDLE"
        )
    if references is None:
        raise MedsegError(
            "give REFERENCES to score against; without references, use "
            "medseg review MASKS SCANS BUNDLE"
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
