"""Every bundle that ships with medseg is right."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from medseg.bundle.bundle import load_bundle
from medseg.bundle.spec_files import build_schema
from medseg.networks.building import try_network

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
SHIPPED = sorted(BUNDLES.glob("*/*.json"))


def test_there_are_bundles_and_each_folder_has_its_main_file() -> None:
    assert SHIPPED
    for folder in (path for path in BUNDLES.iterdir() if path.is_dir()):
        assert (folder / "bundle.json").is_file()


@pytest.mark.parametrize(
    "file", SHIPPED, ids=lambda file: f"{file.parent.name}-{file.stem}"
)
def test_a_shipped_bundle_is_right(file: Path) -> None:
    content = json.loads(file.read_text("utf-8"))
    jsonschema.validate(
        content, build_schema(), jsonschema.Draft202012Validator
    )
    bundle = load_bundle(file)
    try_network(bundle.spec)
    assert bundle.spec.description
    assert bundle.spec.licence != "unknown"
    schema = (file.parent / content["$schema"]).resolve()
    assert json.loads(schema.read_text("utf-8")) == build_schema()
    if file.name == "bundle.json":
        assert bundle.spec.name == file.parent.name
