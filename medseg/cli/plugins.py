"""``medseg plugins``: what installed packages add to medseg."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from medseg.cli.options import AsJson
from medseg.cli.output import FAILED, START_OVER, open_terminal, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medseg._support.registry import Plugin
    from medseg.cli.terminal import Terminal

_HEADING = ("group", "name", "package", "version")


def plugins(as_json: AsJson = False) -> None:
    """List image formats, losses and more, with who provides them.

    Packages add to medseg through entry points; groups are named as in their pyproject.toml.

    Exit code 1: something that is registered cannot be used.
    """
    with open_terminal(START_OVER) as terminal:
        from medseg.commands.plugins import list_plugins

        listed = list_plugins()
    if as_json:
        print_json([asdict(plugin) for plugin in listed])
    else:
        _print_plugins(terminal, listed)
    has_problem = any(plugin.problem for plugin in listed)
    raise typer.Exit(FAILED if has_problem else 0)


def _print_plugins(terminal: Terminal, plugins: Sequence[Plugin]) -> None:
    rows = [
        (plugin.group, plugin.name, plugin.package, plugin.version)
        for plugin in plugins
    ]
    terminal.show_table([_HEADING, *rows], left=range(len(_HEADING)))
    for plugin in plugins:
        if plugin.problem:
            terminal.say(f"  cannot be used: {plugin.problem}")
