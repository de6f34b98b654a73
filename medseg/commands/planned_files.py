"""The files that ``medseg plan`` writes its bundles to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg._support.files import write_atomically
from medseg.bundle.bundle import parse_spec
from medseg.bundle.schema_file import write_schema_beside
from medseg.bundle.spec import BundleSpec
from medseg.errors import MedsegError, OutputError
from medseg.networks.building import try_network


def check_files(files: Mapping[Path, int | None]) -> None:
    """Check that nothing would be overwritten.

    Raises:
        OutputError: If a file is there.
        MedsegError: If a number of dimensions is neither 2 nor 3.
    """
    for file, dims in files.items():
        if file.is_dir():
            raise OutputError(
                "is a folder; give -o a file, such as bundle.json in it",
                source=file,
            )
        if file.exists():
            raise OutputError(
                "exists already; remove it, or choose another -o", source=file
            )
        if dims not in (None, 2, 3):
            raise MedsegError(f"--dims takes 2 or 3; got {dims}")


def write_planned(content: dict[str, Any], file: Path) -> BundleSpec:
    """Write a bundle after making sure that its fields and its network fit together."""
    spec = parse_spec(content, "the planned bundle")
    try_network(spec)
    write_schema_beside(file)
    write_atomically(
        file, json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    )
    return spec
