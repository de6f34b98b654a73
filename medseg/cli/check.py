"""``medseg check``: every fault of a bundle and its data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.options import AsJson, BundlePath, Overrides, TrustValues
from medseg.cli.output import (
    INVALID,
    START_OVER,
    format_count,
    open_terminal,
    print_json,
)
from medseg.errors import join_faults

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.commands.check import CheckReport


def check(
    bundle: BundlePath,
    data: Annotated[
        Path | None,
        typer.Option(
            help="The data folder. Default: the bundle's, if it exists."
        ),
    ] = None,
    overrides: Overrides = None,
    trust_values: TrustValues = False,
    as_json: AsJson = False,
) -> None:
    """Find every fault of a bundle and its data, without training.

    Exit code 2: there are faults.

    Examples:

      medseg check bundle.json --data Task04_Hippocampus
    """
    with open_terminal(START_OVER) as terminal:
        from medseg.commands.check import check as run

        report = run(
            bundle,
            data=data,
            overrides=overrides or (),
            trust_values=trust_values,
            listeners=[terminal],
        )
    if as_json:
        print_json(asdict(report))
    else:
        _print_report(terminal, report)
    raise typer.Exit(INVALID if report.faults else 0)


def _print_report(terminal: Terminal, report: CheckReport) -> None:
    """Print every fault and warning of a check, or that there is none."""
    for warning in report.warnings:
        terminal.say(f"note: {warning}")
    lines: Iterable[str] = map(str, report.faults)
    if report.cases is not None:
        lines = join_faults(report.faults)
    for line in lines:
        terminal.say(f"fault: {line}")
    verdict = "no faults"
    if report.faults:
        verdict = format_count(len(report.faults), "fault")
    if report.cases is not None:
        verdict += f"; {format_count(report.cases, 'usable case')}"
    terminal.say(verdict)
