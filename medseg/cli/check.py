"""``medseg check``: every fault of a bundle and its data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.options import AsJson, BundlePath, Overrides
from medseg.cli.output import WRONG, open_terminal, print_json

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.commands.check import CheckReport


def check(
    bundle: BundlePath,
    data: Annotated[
        Path | None, typer.Option(help="The data folder; else the bundle's, if it is there.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Name every fault of a bundle and its data; nothing is trained.

    Exit code 2: there are faults.

    Example:

      medseg check bundle.json --data Task04_Hippocampus
    """
    with open_terminal() as terminal:
        from medseg.commands.check import check as run

        report = run(bundle, data=data, overrides=overrides or (), listeners=[terminal])
    if as_json:
        print_json(asdict(report))
    else:
        _print_report(terminal, report)
    raise typer.Exit(WRONG if report.faults else 0)


def _print_report(terminal: Terminal, report: CheckReport) -> None:
    """Print every fault and warning of a check, or that there is none."""
    for warning in report.warnings:
        terminal.say(f"note: {warning}")
    for fault in report.faults:
        terminal.say(f"fault: {fault}")
    cases = "" if report.cases is None else f"; {report.cases} good cases"
    count = len(report.faults)
    verdict = "no fault" if not count else f"{count} fault{'s' * (count > 1)}"
    terminal.say(f"{verdict}{cases}")
