"""``medseg user``: who may log in to ``medseg label``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.output import open_terminal


def user(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Without blanks or colons."),
    ],
    users: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The file of users; made if there is none."
        ),
    ],
    role: Annotated[
        str,
        typer.Option(
            metavar="ROLE",
            help="annotator (segments and corrects), reviewer (judges others' corrections) or "
            "admin (trains, promotes, uploads).",
        ),
    ] = "annotator",
) -> None:
    """Add a user of `medseg label`, or change a password or role.

    Asks for the password; reads it from standard input where that is no terminal. The file holds
    the password's hash, and only its owner can read it.

    Examples:

      medseg user anna --role admin --users users.txt

      medseg label BUNDLE scans/ --host 0.0.0.0 --users users.txt
    """
    with open_terminal(""):
        from medseg.label_server.users import Role, write_user

        chosen = Role.parse(role)
        write_user(users, name, _read_password(), chosen)
    typer.echo(f"{name} may log in as {chosen.word}")


def _read_password() -> str:
    if sys.stdin.isatty():
        password: str = typer.prompt(
            "Password", hide_input=True, confirmation_prompt=True
        )
        return password
    return sys.stdin.readline().rstrip("\r\n")
