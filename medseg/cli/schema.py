"""``medseg schema``: what a bundle.json may hold, for editors."""

from __future__ import annotations

from medseg.cli.output import print_json


def schema() -> None:
    """Print the JSON Schema of bundle.json, for editors."""
    from medseg.bundle.bundle import build_schema

    print_json(build_schema())
