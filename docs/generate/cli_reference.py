"""The reference of the command line for people, written from the commands themselves.

``python docs/generate/cli_reference.py > docs/reference/cli.md`` writes it.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

import typer

from medseg.cli import app

_HEAD = """\
# Command line

`medseg COMMAND --help` says the same at the terminal. Exit codes: 0 all done; 1 some scans or cases
failed, each named; 2 the call, the bundle or a folder is wrong; 75 another call is segmenting
there; 130 interrupted.

Written from the commands themselves by `docs/generate/cli_reference.py`.
"""


def cli_reference() -> str:
    """Return the reference as Markdown."""
    group: Any = typer.main.get_command(app)
    sections = [_HEAD]
    for name, command in group.commands.items():
        sections.append("\n".join(_describe(name, command)))
    return "\n".join(sections)


def _describe(name: str, command: Any) -> Iterator[str]:
    arguments = [
        item for item in command.params if item.param_type_name == "argument"
    ]
    options = [
        item for item in command.params if item.param_type_name == "option"
    ]
    usage = " ".join(_usage(argument) for argument in arguments)
    yield f"## medseg {name}"
    yield ""
    yield "```sh"
    yield f"medseg {name} {usage} [OPTIONS]".replace("  ", " ")
    yield "```"
    yield ""
    yield from _paragraphs(command.help or "")
    if arguments:
        yield "| argument | |"
        yield "| --- | --- |"
        for argument in arguments:
            yield f"| `{_metavar(argument)}` | {_cell(argument.help)} |"
        yield ""
    yield "| option | default | |"
    yield "| --- | --- | --- |"
    for option in options:
        if not option.hidden:
            yield f"| {_names(option)} | {_default(option)} | {_cell(option.help)} |"
    yield ""


def _usage(argument: Any) -> str:
    name = _metavar(argument)
    if argument.nargs == -1:
        name = f"{name}…"
    return name if argument.required else f"[{name}]"


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name).upper()


def _names(option: Any) -> str:
    flags = ", ".join(
        f"`{name}`" for name in (*option.opts, *option.secondary_opts)
    )
    if option.is_flag:
        return flags
    if not option.metavar:
        return flags
    return f"{flags} `{option.metavar}`"


def _default(option: Any) -> str:
    default = option.default
    if (
        option.is_flag
        or default is None
        or callable(default)
        or default in ((), [], "")
    ):
        return ""
    return f"`{default}`"


def _paragraphs(text: str) -> Iterator[str]:
    """Yield help as Markdown: what was indented, examples, becomes code."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        lines = paragraph.replace("\b", "").splitlines()
        is_code = all(line.startswith("  ") for line in lines if line.strip())
        if is_code and lines:
            yield from ("```sh", *(line.strip() for line in lines), "```", "")
        else:
            yield from (" ".join(line.strip() for line in lines), "")


def _cell(text: str | None) -> str:
    return (
        " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")
    )


if __name__ == "__main__":
    sys.stdout.write(cli_reference())
