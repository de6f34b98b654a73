"""``medseg schema``: what a bundle.json or assembly.json may hold, for editors."""

from __future__ import annotations

from typing import Annotated

import typer

from medseg.cli.output import print_json
from medseg.errors import MedsegError

_KINDS = ("bundle", "assembly")


def schema(
    kind: Annotated[
        str, typer.Argument(metavar="bundle|assembly", help="Of which file.")
    ] = "bundle",
) -> None:
    """Print the JSON Schema of bundle.json or assembly.json."""
    if kind not in _KINDS:
        raise MedsegError(f"schema takes {' or '.join(_KINDS)}; got '{kind}'")
    from medseg.bundle.spec_files import build_assembly_schema, build_schema

    print_json(build_schema() if kind == "bundle" else build_assembly_schema())
