"""Specs as the files of a bundle, as JSON Schemas, and as fields that can be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg._support.files import write_atomically
from medseg.bundle.bundle import TRAINED_FILE
from medseg.bundle.spec import (
    ASSEMBLY_SCHEMA_ID,
    SCHEMA_ID,
    AssemblySpec,
    BundleSpec,
    TrainedSpec,
)
from medseg.bundle.spec.described import DescribedSpec


def write_trained(trained: TrainedSpec, folder: Path) -> None:
    """Write what a training run found into a bundle's folder."""
    write_atomically(
        folder / TRAINED_FILE, trained.model_dump_json(indent=2) + "\n"
    )


def write_bundle(spec: BundleSpec, file: Path) -> None:
    """Write a spec, every default spelled out, as ``bundle.json``."""
    write_atomically(file, format_spec(spec))


def format_spec(spec: BundleSpec) -> str:
    """Return a spec as the text of a ``bundle.json``, every default spelled out."""
    return _format(spec, SCHEMA_ID)


def write_assembly(spec: AssemblySpec, file: Path) -> None:
    """Write an assembly as ``assembly.json``."""
    write_atomically(file, format_assembly(spec))


def format_assembly(spec: AssemblySpec) -> str:
    """Return an assembly as the text of an ``assembly.json``, every default spelled out."""
    return _format(spec, ASSEMBLY_SCHEMA_ID)


def _format(spec: DescribedSpec, schema: str) -> str:
    content = spec.model_dump(mode="json", by_alias=True)
    content["$schema"] = content["$schema"] or schema
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


_UNTRACKED = {"schema_", "description", "references", "notes"}
"""Fields for people, which change nothing that is learned."""
_NAMED_BY_LABELS = "training.class_weights"
"""A field whose keys are names of labels, not of fields."""


def flatten_spec(spec: BundleSpec) -> dict[str, str]:
    """Return the spec as ``section.field`` → text, for tracking."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        has_fields = (
            isinstance(value, dict) and value and prefix != _NAMED_BY_LABELS
        )
        if not has_fields:
            flat[prefix] = (
                value if isinstance(value, str) else json.dumps(value)
            )
            return
        for key, item in value.items():
            walk(f"{prefix}.{key}" if prefix else key, item)

    walk("", spec.model_dump(mode="json", exclude=_UNTRACKED))
    return flat


def build_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``bundle.json``, for editors."""
    return _build_schema(BundleSpec, SCHEMA_ID)


def build_assembly_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``assembly.json``, for editors."""
    return _build_schema(AssemblySpec, ASSEMBLY_SCHEMA_ID)


def _build_schema(kind: type[DescribedSpec], name: str) -> dict[str, Any]:
    from medseg.bundle.spec.descriptions import describe_fields

    schema = kind.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": name,
    } | describe_fields(schema, kind)


def list_differences(one: BundleSpec, other: BundleSpec) -> Sequence[str]:
    """Name the fields in which two specs differ, as ``field: a → b``."""
    first = flatten_spec(one)
    second = flatten_spec(other)
    differences = []
    for field in sorted(first.keys() | second.keys()):
        before = first.get(field, "–")
        after = second.get(field, "–")
        if before != after:
            differences.append(f"{field}: {before} → {after}")
    return differences
