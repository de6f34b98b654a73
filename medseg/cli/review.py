"""``medseg review``: masks by others, judged by a trained bundle, without references."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.options import (
    AsJson,
    BundlePath,
    Device,
    Log,
    Quiet,
    Split4D,
    TrustValues,
)
from medseg.cli.output import (
    START_OVER,
    end_command,
    open_terminal,
    print_json,
)

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.evaluation.mask_review import MaskReview

_MAX_ROWS = 25
"""Masks in the printed table; the file has them all."""

_MAX_NAMED = 5
"""Masks of which it is said why to look at them; the file says it of all."""

_NOT_CALIBRATED = (
    "This bundle cannot say how good masks are: it is not calibrated, or was trained on made-up "
    "data. The Dice with its own masks ranks them."
)
_CALIBRATED = (
    "Ranked by the Dice with the bundle's own masks. The expected Dice is no higher than that: "
    "of a mask that is better than the bundle's own it is too low."
)


def review(
    masks: Annotated[
        Path,
        typer.Argument(
            metavar="MASKS", help="A folder of label maps, or a single one."
        ),
    ],
    scans: Annotated[
        Path,
        typer.Argument(
            metavar="SCANS",
            help="The scans the masks were drawn on: a file, a folder (searched recursively) or "
            "a CSV.",
        ),
    ],
    bundle: BundlePath,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The folder to write agreement.csv to."
        ),
    ] = None,
    split_4d: Split4D = "",
    device: Device = "auto",
    trust_values: TrustValues = False,
    log: Log = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Review masks by others without references, worst first.

    A trained bundle segments each scan; a mask is judged by how far the bundle agrees with it.
    Masks hold the bundle's label indices, or name their segments as the bundle's labels
    (.seg.nrrd, SEG, RTSTRUCT), and lie on their scans' grids.

    Exit code 1: some masks could not be reviewed.

    Examples:

      medseg review masks/ scans/ BUNDLE -o scores
    """
    with open_terminal(
        START_OVER, quiet=quiet, log=log, command="review"
    ) as terminal:
        from medseg.commands.review import review as run

        result = run(
            masks,
            scans,
            bundle,
            out,
            device=device,
            split_4d=split_4d,
            trust_values=trust_values,
            listeners=terminal.listeners,
        )
    if as_json:
        faults = [asdict(fault) for fault in result.faults]
        content = {"coverage": result.coverage, "cases": result.rows()}
        print_json({**content, "faults": faults})
    else:
        _print_review(terminal, result, out)
    count = len(result.cases)
    summary = f"{count} masks reviewed, {len(result.faults)} not"
    end_command(terminal, summary, is_whole=not result.faults)


def _print_review(
    terminal: Terminal, review: MaskReview, out: Path | None
) -> None:
    """Print the masks that the bundle agrees with least, and name those it could not judge."""
    if not review.cases:
        terminal.say("No mask could be reviewed:")
        terminal.say_faults("not reviewed", review.faults)
        return
    heading, *rows = review.summary_rows()
    terminal.show_table([heading, *rows[:_MAX_ROWS]], left=(0, 2))
    if len(rows) > _MAX_ROWS:
        terminal.say(f"and {len(rows) - _MAX_ROWS} more, which agree better")
    terminal.say(_NOT_CALIBRATED if review.coverage is None else _CALIBRATED)
    for mask in review.to_review[:_MAX_NAMED]:
        for reason in mask.quality.reasons:
            terminal.say(f"  {mask.case}: {reason}")
    terminal.say(
        f"{len(review.to_review)} of {len(review.cases)} need a closer look"
    )
    terminal.say_faults("not reviewed", review.faults)
    if out is not None:
        terminal.say(f"All masks: {out / 'agreement.csv'}")
