"""The schema that a bundle names is where it says, for editors."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema

import medseg
from medseg.bundle.schema_file import write_schema_beside
from medseg.bundle.shipped import list_shipped_bundles
from medseg.testing import write_dataset

ROOT = Path(__file__).resolve().parents[2]


def test_the_schema_of_a_planned_bundle_lies_where_it_says(
    tmp_path: Path,
) -> None:
    data = write_dataset(tmp_path / "data", 2, shape=(24, 20, 16), spacing=9.0)
    file = tmp_path / "plans" / "bundle.json"
    medseg.plan(data, file, device="cpu")
    content = json.loads(file.read_text())
    # Editors take a relative path for one only where it begins so.
    assert content["$schema"].startswith("./")
    schema = json.loads((file.parent / content["$schema"]).read_text())
    jsonschema.validate(content, schema)


def test_the_schema_of_shipped_bundles_lies_where_they_say() -> None:
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = packed["tool"]["hatch"]["build"]["targets"]["wheel"]
    places = wheel["force-include"].items()
    in_wheel = {Path("/", to): ROOT / origin for origin, to in places}
    installed = Path("/medseg/shipped_bundles")
    for folder in list_shipped_bundles().values():
        for file in folder.glob("*.json"):
            named = json.loads(file.read_text())["$schema"]
            schema = json.loads((folder / named).resolve().read_text())
            assert schema["$id"] == "medseg-bundle-1.json"
            packed_at = (installed / folder.name / named).resolve()
            assert in_wheel[packed_at] == (folder / named).resolve()


def test_a_former_schema_is_replaced_and_a_file_of_somebody_stays(
    tmp_path: Path,
) -> None:
    file = tmp_path / "medseg-bundle-1.json"
    file.write_text('{"$id": "medseg-bundle-1.json"}')
    write_schema_beside(tmp_path / "bundle.json")
    assert "properties" in json.loads(file.read_text())
    file.write_text("mine")
    write_schema_beside(tmp_path / "bundle.json")
    assert file.read_text() == "mine"
