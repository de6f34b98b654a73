"""What every command uses to answer: exit codes, errors, the terminal, JSON."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from medseg._support.json_values import nan_to_none
from medseg._support.log_file import LogFile
from medseg._support.platform.processes import handle_stop_signals
from medseg._support.ray_head import LostClusterError
from medseg.cli.consoles import shows_all_signs
from medseg.errors import BusyError, MedsegError, recordable_text

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal

FAILED = 1
"""Exit code: some scans or cases failed; each is named."""
INVALID = 2
"""Exit code: the call or the bundle is wrong."""
BUSY = 75
"""Exit code: another process works in the folder, or a cluster was lost; BSD's code for what may
succeed later."""
INTERRUPTED = 130
"""Exit code: Ctrl-C or SIGTERM stopped the command, as shells report Ctrl-C."""

START_OVER = "Run the same command again to start over."


@contextmanager
def open_terminal(
    if_interrupted: str,
    *,
    quiet: bool = False,
    log: Path | None = None,
    command: str = "",
) -> Iterator[Terminal]:
    """Show progress while a command works; its results are printed afterwards.

    SIGTERM, by which systems stop a command, ends it as Ctrl-C does.

    Args:
        if_interrupted: What to do after Ctrl-C.
        quiet: Whether nothing is shown but what failed.
        log: A file to keep a log in.
        command: What the log calls the command.

    Raises:
        OutputError: If the log cannot be written.
    """
    # Rich is only loaded when a command runs, so that --help answers at once.
    from medseg.cli.terminal import Terminal

    log_file = None if log is None else LogFile(log, command)
    try:
        with (
            handle_stop_signals(),
            _hush_libraries(quiet),
            Terminal(quiet=quiet, log=log_file) as terminal,
        ):
            yield terminal
    except KeyboardInterrupt as interruption:
        if log_file is not None:
            log_file.write(f"ends with exit code {INTERRUPTED}: interrupted")
        print_interruption(f"{interruption} {if_interrupted}".lstrip())
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if log_file is not None:
            code = get_exit_code(error)
            text = recordable_text(error)
            log_file.write(f"ends with exit code {code}: {text}")
        raise


@contextmanager
def _hush_libraries(quiet: bool) -> Iterator[None]:
    """Let other libraries print nothing but errors."""
    if not quiet:
        yield
        return
    root = logging.getLogger()
    former = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(former)


def get_exit_code(error: Exception) -> int:
    """Return the exit code for an error that ended a command."""
    if isinstance(error, (BusyError, LostClusterError)):
        return BUSY
    return INVALID if isinstance(error, MedsegError) else FAILED


def end_command(
    terminal: Terminal, summary: str, *, is_whole: bool
) -> NoReturn:
    """Log how a command ended, and exit.

    Args:
        terminal: Where it was shown.
        summary: What the log says of it; names nobody.
        is_whole: Whether nothing failed.
    """
    code = 0 if is_whole else FAILED
    log = terminal.log
    if log is not None:
        log.write(f"ends with exit code {code}: {summary}")
        if log.fault:
            print_error(f"the log is not whole ({log.fault})")
    raise typer.Exit(code)


def print_error(message: str) -> None:
    """Print on stderr what is wrong."""
    typer.echo(f"medseg: {message}", err=True)


def print_interruption(advice: str) -> None:
    """Print on stderr that the command was interrupted, and what to do."""
    typer.echo(f"Interrupted. {advice}".rstrip(), err=True)


def print_json(content: Any) -> None:
    """Print a result for machines; NaN and infinity, which JSON does not know, as ``null``.

    Signs beyond ASCII are escaped where the output's encoding may lack them.
    """
    text = json.dumps(
        nan_to_none(content),
        indent=2,
        ensure_ascii=not shows_all_signs(sys.stdout),
        default=str,
    )
    typer.echo(text)


def format_count(number: int, noun: str) -> str:
    """Return a number and its noun: ``1 case``, ``2 cases``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
