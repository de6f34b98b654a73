"""What every command answers with: an exit code, a complaint, JSON.

Exit codes: 0 all done; 1 some scans or cases failed, each named; 2 the call or the bundle is
wrong; 130 the user stopped it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from medseg._support.json_values import nan_to_none

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal

FAILED, WRONG, INTERRUPTED = 1, 2, 130


def open_terminal() -> Terminal:
    """Return what shows progress and results; loaded late, as the commands' own libraries are."""
    from medseg.cli.terminal import Terminal

    return Terminal()


def print_error(message: str) -> None:
    """Say on stderr what is wrong."""
    typer.echo(f"medseg: {message}", err=True)


def print_json(content: Any) -> None:
    """Print a result for machines; what is no number there, as JSON has no NaN, is ``null``."""
    typer.echo(json.dumps(nan_to_none(content), indent=2, ensure_ascii=False, default=str))
