"""What every command uses to answer: exit codes, errors, the terminal, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from medseg._support.json_values import nan_to_none

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal

FAILED = 1
"""Exit code: some scans or cases failed; each is named."""
INVALID = 2
"""Exit code: the call or the bundle is wrong."""
INTERRUPTED = 130
"""Exit code: the user pressed Ctrl-C, as shells report it."""

START_OVER = "Run the same command again to start over."


@contextmanager
def open_terminal(if_interrupted: str) -> Iterator[Terminal]:
    """Show progress while a command works; its results are printed afterwards.

    Args:
        if_interrupted: What to do after Ctrl-C.
    """
    # Rich is only loaded when a command runs, so that --help answers at once.
    from medseg.cli.terminal import Terminal

    try:
        with Terminal() as terminal:
            yield terminal
    except KeyboardInterrupt as interruption:
        print_interruption(f"{interruption} {if_interrupted}".lstrip())
        raise typer.Exit(INTERRUPTED) from None


def print_error(message: str) -> None:
    """Print on stderr what is wrong."""
    typer.echo(f"medseg: {message}", err=True)


def print_interruption(advice: str) -> None:
    """Print on stderr that the command was interrupted, and what to do."""
    typer.echo(f"Interrupted. {advice}".rstrip(), err=True)


def print_json(content: Any) -> None:
    """Print a result for machines; NaN and infinity, which JSON does not know, as ``null``."""
    text = json.dumps(
        nan_to_none(content), indent=2, ensure_ascii=False, default=str
    )
    typer.echo(text)


def format_count(number: int, noun: str) -> str:
    """Return a number and its noun: ``1 case``, ``2 cases``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
