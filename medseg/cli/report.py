"""``medseg report``: what became of a batch, while others work on it and afterwards."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.options import AsJson, Log, Quiet
from medseg.cli.output import (
    START_OVER,
    end_command,
    format_count,
    open_terminal,
    print_json,
)

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.commands.report import BatchReport
    from medseg.inference.scan_counts import ScanCounts

_MAX_NAMED = 20
"""Scans and shards that are named; the report has them all."""


def report(
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="The folder, or the address, that medseg segment writes to.",
        ),
    ],
    parquet: Annotated[
        bool,
        typer.Option(
            "--parquet",
            help="Also write OUT/volumes.parquet, for pandas, R and databases. Needs pyarrow.",
        ),
    ] = False,
    log: Log = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write the report and the volumes of a batch done in shards.

    It may be called at any time: while shards work, OUT/report.html and OUT/volumes.csv show what
    is done so far.

    Exit code 1: some scans failed, lack a format asked for, or are not done yet.

    Examples:

      medseg report results/

      medseg report results/ --parquet
    """
    with open_terminal(
        START_OVER, quiet=quiet, log=log, command="report"
    ) as terminal:
        from medseg.commands.report import report as run
        from medseg.inference.scan_counts import count_scans

        result = run(out, parquet=parquet)
    counts = count_scans(result.entries)
    if as_json:
        print_json(
            {
                "is_whole": result.is_whole,
                "scans": result.scans,
                "working": result.working,
                "to_start": [str(shard) for shard in result.to_start],
                "remarks": list(result.remarks),
                "results": [
                    entry.model_dump(mode="json") for entry in result.entries
                ],
            }
        )
    else:
        _print_report(terminal, result, counts)
    is_whole = result.is_whole and counts.has_all_results
    end_command(terminal, _summarise(result, counts), is_whole=is_whole)


def _print_report(
    terminal: Terminal, result: BatchReport, counts: ScanCounts
) -> None:
    terminal.say(f"{_summarise(result, counts)} → {result.place}")
    failed = (entry for entry in result.entries if entry.is_failed)
    for entry in islice(failed, _MAX_NAMED):
        terminal.say(f"  failed: {entry.scan}: {entry.error}")
    more = counts.failed - _MAX_NAMED
    if more > 0:
        terminal.say(f"  and {more} more, named in the report")
    if result.to_start:
        shards = [str(shard) for shard in result.to_start[:_MAX_NAMED]]
        names = ", ".join(shards)
        more = len(result.to_start) - len(shards)
        rest = f" and {more} more" if more else ""
        terminal.say(f"  to be started (again): --shard {names}{rest}")
    if result.damaged:
        lines = format_count(result.damaged, "line")
        terminal.say(
            f"  {lines} of the ledgers cannot be read; segmenting again does these scans again"
        )
    for remark in result.remarks:
        terminal.say(f"  note: {remark}")
    terminal.say(f"  report  {result.place}/report.html")


def _summarise(result: BatchReport, counts: ScanCounts) -> str:
    scans = "" if result.scans is None else f" of {result.scans}"
    text = f"{counts.good}{scans} scans segmented, {counts.failed} failed"
    if result.working:
        text += f"; {result.working} at work"
    elif not result.is_whole:
        text += "; not all are done"
    return text
