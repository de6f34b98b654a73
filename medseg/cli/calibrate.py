"""``medseg calibrate``: what the results of a trained bundle are worth."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg._support.platform.shells import quote_argument
from medseg.cli.options import AsJson, BundlePath, Device, TrustValues
from medseg.cli.output import format_count, open_terminal, print_json

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.commands.calibrate import Calibration


def calibrate(
    bundle: BundlePath,
    data: Annotated[
        Path,
        typer.Option(
            metavar="LABELLED",
            help="Labelled cases that the bundle has not learned from, 8 or more, in any layout "
            "that train knows.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT", help="A new folder: a calibrated copy of the bundle."
        ),
    ] = None,
    in_place: Annotated[
        bool,
        typer.Option("--in-place", help="Calibrate the bundle itself."),
    ] = False,
    keep_largest: Annotated[
        bool,
        typer.Option(
            "--keep-largest",
            help="Also decide, label by label, whether only the largest connected component is "
            "kept, as at the end of a training run.",
        ),
    ] = False,
    device: Device = "auto",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="A.B=VALUE",
            help="Override a field of data (how the cases are read) or of quality, e.g. "
            "quality.coverage=0.95. Repeatable.",
        ),
    ] = None,
    skip_bad_cases: Annotated[
        bool,
        typer.Option(
            "--skip-bad-cases", help="Leave out cases that have a fault."
        ),
    ] = False,
    trust_values: TrustValues = False,
    as_json: AsJson = False,
) -> None:
    """Learn on labelled cases what results are worth.

    For a bundle that was imported, or for scans unlike those of its training. The cases are
    segmented and scored as at the end of a training run. Then each result has an expected Dice with
    a lower bound, and is flagged where it lies outside what these cases are like. On a CPU it is
    also decided how fast it may compute the network without losing Dice ('segment --speed').
    Cases that the bundle has learned from are left out. A call that was interrupted goes on where
    it was.

    Examples:

      medseg calibrate spleen spleen_here --data labelled/

      medseg calibrate runs/liver/20260101-120000-fold0 --in-place --data site.csv
    """
    advice = "Run the same command again to continue."
    with open_terminal(advice) as terminal:
        from medseg.commands.calibrate import calibrate as run

        calibration = run(
            bundle,
            out,
            data=data,
            in_place=in_place,
            keep_largest=keep_largest,
            device=device,
            overrides=overrides or (),
            skip_bad_cases=skip_bad_cases,
            trust_values=trust_values,
            listeners=[terminal],
        )
    if as_json:
        print_json(_to_json(calibration))
    else:
        _print_calibration(terminal, calibration)


def _to_json(calibration: Calibration) -> dict[str, Any]:
    return asdict(calibration)


def _print_calibration(terminal: Terminal, calibration: Calibration) -> None:
    """Print where a calibrated bundle is, and what its numbers mean."""
    folder = calibration.folder
    cases = format_count(calibration.cases, "case")
    dice = calibration.scores["dice"]["mean"]
    terminal.say(f"Calibrated bundle: {folder}")
    terminal.say(f"  Dice      {dice:.3f} on average over {cases}")
    share = 100 * calibration.coverage
    terminal.say(
        f"  bound     the true Dice is at or above it in {share:.0f} % of scans like these"
    )
    terminal.say(
        f"  review    results with an expected Dice below {calibration.review_below:.3f}"
    )
    terminal.say(f"  limits    {folder / 'docs' / 'README.md'}")
    bundle = quote_argument(folder)
    terminal.say(f"  use it    medseg segment {bundle} SCANS OUT")
