"""``medseg bundles``: what comes with medseg."""

from __future__ import annotations

import typer

from medseg.cli.options import AsJson
from medseg.cli.output import print_json


def bundles(as_json: AsJson = False) -> None:
    """List the bundles that come with medseg.

    Each is called by its name wherever a BUNDLE is asked for.

    Examples:

      medseg bundles

      medseg train hippocampus_mr --data Task04_Hippocampus
    """
    from medseg.bundle.bundle import load_bundle
    from medseg.bundle.shipped import list_shipped_bundles

    described = {}
    for name, folder in list_shipped_bundles().items():
        spec = load_bundle(folder).spec
        described[name] = {"description": spec.description, "path": str(folder)}
    if as_json:
        print_json(described)
        return
    width = max((len(name) for name in described), default=0)
    for name, about in described.items():
        typer.echo(f"{name:{width}}  {about['description']}")
