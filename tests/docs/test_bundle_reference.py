"""The generated reference files say what the spec says now."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from medseg.bundle.spec_files import build_assembly_schema, build_schema

DOCS = Path(__file__).resolve().parents[2] / "docs"
REFERENCE = DOCS / "reference"


def bundle_reference(of: str = "bundle") -> str:
    script = runpy.run_path(str(DOCS / "generate" / "bundle_reference.py"))
    return str(script[f"{of}_reference"]())


def test_the_schema_on_disk_is_current() -> None:
    on_disk = (REFERENCE / "medseg-bundle-1.json").read_text("utf-8")
    assert json.loads(on_disk) == build_schema(), (
        "the spec has changed; run: medseg schema > docs/reference/medseg-bundle-1.json"
    )


def test_the_reference_on_disk_is_current() -> None:
    assert (REFERENCE / "bundle.md").read_text("utf-8") == bundle_reference(), (
        "the spec has changed; run: make reference"
    )


def test_what_stands_on_disk_of_assemblies_is_current() -> None:
    on_disk = (REFERENCE / "medseg-assembly-1.json").read_text("utf-8")
    assert json.loads(on_disk) == build_assembly_schema(), "run: make reference"
    page = (REFERENCE / "assembly.md").read_text("utf-8")
    assert page == bundle_reference("assembly"), "run: make reference"


@pytest.mark.parametrize("part", ["", *build_schema()["$defs"]])
def test_every_field_has_a_sentence_in_the_reference(part: str) -> None:
    schema = build_schema()
    section = schema["$defs"][part] if part else schema
    text = bundle_reference()
    for name, field in section["properties"].items():
        assert f"| `{name}` |" in text
        described = (
            field.get("description")
            or "$ref" in field
            or name in ("kind", "network")
        )
        assert described, f"{part}.{name} has no sentence"


def test_links_lead_to_headings() -> None:
    text = bundle_reference()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    anchors = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in headings
    }
    links = re.findall(r"\]\(#([^)]+)\)", text)
    assert links
    assert set(links) <= anchors
