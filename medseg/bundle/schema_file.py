"""The JSON Schema of ``bundle.json`` as a file, which editors open by a bundle's ``$schema``."""

from __future__ import annotations

import json
from pathlib import Path

from medseg._support.files import write_atomically
from medseg.bundle.spec import SCHEMA_ID
from medseg.bundle.spec_files import build_schema

SCHEMA_BESIDE = f"./{SCHEMA_ID}"
"""``$schema`` of a bundle whose schema lies beside it; editors take no relative path without ./"""


def write_schema_beside(bundle: Path) -> None:
    """Write the schema beside a bundle; a file of this name that is no such schema stays.

    Args:
        bundle: The bundle's file.

    Raises:
        OutputError: If it cannot be written.
    """
    file = bundle.with_name(SCHEMA_ID)
    schema = build_schema()
    if file.exists() and _read(file) in (None, schema):
        return
    text = json.dumps(schema, indent=2, ensure_ascii=False)
    write_atomically(file, text + "\n")


def _read(file: Path) -> object | None:
    """Return a schema of bundles, of whatever version; ``None`` where it is something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return content if content["$id"] == SCHEMA_ID else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
