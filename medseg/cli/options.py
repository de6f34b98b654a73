"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BundlePath = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or a bundle.json.")
]
Device = Annotated[
    str, typer.Option(help="auto (a GPU if there is one), cpu, cuda or cuda:N.", metavar="NAME")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=VALUE",
        help="Change a field of the bundle for this call, as in training.steps=200. Repeatable.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
