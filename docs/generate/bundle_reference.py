"""The reference of ``bundle.json`` for people, written from the fields' own sentences.

``python docs/generate/bundle_reference.py > docs/reference/bundle.md`` writes it, and with
``assembly`` behind it that of ``assembly.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from medseg.bundle.spec_files import build_assembly_schema, build_schema

Schema = dict[str, Any]

_HEAD = """\
# bundle.json

Every field of a bundle, its default and what it takes. A bundle is data: nothing in it is run.
Unknown fields are faults, so a typing error is found at once: `medseg check BUNDLE` names every
fault with its place. Change a field for one call by `--set section.field=value`. Editors complete
fields by the schema [medseg-bundle-1.json](medseg-bundle-1.json) (`"$schema"`).

Written from the fields themselves by `docs/generate/bundle_reference.py`.
"""

_SECTIONS = {
    "": "The bundle",
    "ChannelSpec": "One of `channels`",
    "LabelSpec": "One of `labels`",
    "RegionSpec": "One of `regions`",
    "DataSpec": "`data`",
    "ColumnsSpec": "`data.columns`",
    "PreprocessingSpec": "`preprocessing`",
    "ResamplingSpec": "`preprocessing.resampling`",
    "ZScore": '`preprocessing.intensity`: `"kind": "zscore"`',
    "Window": '`preprocessing.intensity`: `"kind": "window"`',
    "MinMax": '`preprocessing.intensity`: `"kind": "minmax"`',
    "Squash": '`preprocessing.intensity`: `"kind": "squash"`',
    "NoNormalisation": '`preprocessing.intensity`: `"kind": "none"`',
    "IntensitySequence": '`preprocessing.intensity`: `"kind": "sequence"`',
    "UNetSpec": '`network`: `"kind": "unet"`',
    "StagedUNetSpec": '`network`: `"kind": "resenc"` or `"plainconv"`',
    "NamedNetworkSpec": "`network`: one by name",
    "TrainingSpec": "`training`",
    "AugmentationSpec": "`training.augmentation`",
    "ClicksSpec": "`training.clicks`",
    "RefinementSpec": "`refinement`",
    "CriticSpec": "`refinement.critic`",
    "MaskPoolSpec": "`refinement.bank`",
    "InferenceSpec": "`inference`",
    "SpeedLimitsSpec": "`inference.speed_limits`",
    "QualitySpec": "`quality`",
    "TrackingSpec": "`tracking`",
}
"""Parts of the schema in the order they are read, and their headings."""


_ASSEMBLY_HEAD = """\
# assembly.json

An assembly is a folder with an `assembly.json` and bundles in it, which segment one scan together.
*Parts* are painted into one label map, *stages* say where others look. Wherever a BUNDLE is asked
for, an assembly may stand: `medseg segment`, `check`, `label`, `export`, `evaluate --bundle`,
`review`, `Segmenter("folder")`. It is data: nothing in it is run, and `medseg check FOLDER` names
every fault with its place. Editors complete fields by the schema
[medseg-assembly-1.json](medseg-assembly-1.json) (`"$schema"`).

```json
{
  "name": "thorax",
  "labels": [{"index": 1, "name": "lung"}, {"index": 2, "name": "nodule"}],
  "stages": [{"name": "coarse", "bundle": "bundles/coarse_6mm"}],
  "parts": [
    {"name": "lungs", "bundle": "bundles/lungs"},
    {
      "name": "nodules",
      "bundle": "bundles/nodules",
      "crop": {"source": "coarse", "labels": ["lung_left", "lung_right"], "margin_mm": 10},
      "labels": {"lesion": "nodule"}
    }
  ]
}
```

All bundles take the same channels. Estimated quality and the largest-piece decision are those of
the part that a label comes from; the whole has the mean of the estimates and no bound. Parts whose
preprocessing is alike share it. An assembly is not trained as a whole: train its bundles.

Written from the fields themselves by `docs/generate/bundle_reference.py`.
"""

_ASSEMBLY_SECTIONS = {
    "": "The assembly",
    "LabelSpec": "One of `labels`",
    "StageSpec": "One of `stages`",
    "PartSpec": "One of `parts`",
    "CropSpec": "`crop` of a stage or part",
}

_HEADINGS = {**_SECTIONS, **_ASSEMBLY_SECTIONS}


def bundle_reference() -> str:
    """Return the reference of ``bundle.json`` as Markdown."""
    schema = build_schema()
    schema["properties"]["network"]["description"] = (
        "The network that is trained."
    )
    return _write(schema, _HEAD, _SECTIONS)


def assembly_reference() -> str:
    """Return the reference of ``assembly.json`` as Markdown."""
    return _write(build_assembly_schema(), _ASSEMBLY_HEAD, _ASSEMBLY_SECTIONS)


def _write(schema: Schema, head: str, headings: dict[str, str]) -> str:
    """Return a reference as Markdown.

    Raises:
        KeyError: If the schema has a part that the reference does not know.
    """
    parts = {"": schema, **schema["$defs"]}
    unknown = parts.keys() - headings.keys()
    if unknown:
        raise KeyError(
            f"no place in the reference for {', '.join(sorted(unknown))}"
        )
    for part in list(parts.values()):
        for field in part["properties"].values():
            if "$ref" in field and "description" not in field:
                field["description"] = parts[field["$ref"].rpartition("/")[2]][
                    "description"
                ]
    sections = [
        _section(title, parts[name]) for name, title in headings.items()
    ]
    return "\n".join([head, *sections])


def _section(title: str, part: Schema) -> str:
    lines = [f"## {title}", "", " ".join(part["description"].split()), ""]
    lines += ["| field | default | takes | |", "| --- | --- | --- | --- |"]
    required = part.get("required", ())
    for name, field in part["properties"].items():
        default = "**needed**" if name in required else _default(field)
        text = " ".join(field.get("description", "").split())
        cells = (
            f"`{name}`",
            default,
            " or ".join(dict.fromkeys(_kinds(field))),
            text,
        )
        lines.append(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        )
    return "\n".join([*lines, ""])


def _default(field: Schema) -> str:
    default = field.get("default")
    if isinstance(default, dict) and "kind" in default:
        return f"`{json.dumps(default['kind'])}`"
    if isinstance(default, dict):
        return "its fields' defaults" if default else "`{}`"
    return f"`{json.dumps(default)}`"


def _kinds(field: Schema) -> Iterator[str]:
    """Say what a field takes, one alternative at a time."""
    for group in ("anyOf", "oneOf"):
        for choice in field.get(group, ()):
            yield from _kinds(choice)
    if "$ref" in field:
        yield f"[{(name := field['$ref'].rpartition('/')[2])}](#{_anchor(_HEADINGS[name])})"
    elif "const" in field:
        yield f"`{json.dumps(field['const'])}`"
    elif "enum" in field:
        yield from (f"`{json.dumps(value)}`" for value in field["enum"])
    elif field.get("type") == "array":
        yield _list(field)
    elif "type" in field:
        yield _plain(field)


def _list(field: Schema) -> str:
    if "prefixItems" in field:
        inner = ", ".join(
            " or ".join(_kinds(item)) for item in field["prefixItems"]
        )
        return f"list of [{inner}]"
    inner = " or ".join(dict.fromkeys(_kinds(field["items"])))
    least, most = field.get("minItems"), field.get("maxItems")
    count = f"{least} " if least == most and least else ""
    if least and most and least != most:
        count = f"{least} to {most} "
    return f"list of {count}{inner}"


def _plain(field: Schema) -> str:
    match field["type"]:
        case "null":
            return "`null`"
        case "boolean":
            return "`true` or `false`"
        case "string":
            return "text"
        case "object":
            return "object"
    word = "whole number" if field["type"] == "integer" else "number"
    bounds = [
        f"{sign} {field[key]}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in field
    ]
    return " ".join([word, *bounds])


def _anchor(title: str) -> str:
    """Return the anchor that Markdown renderers give a heading."""
    kept = "".join(
        letter
        for letter in title.lower()
        if letter.isalnum() or letter in " -_"
    )
    return kept.replace(" ", "-")


if __name__ == "__main__":
    is_assembly = sys.argv[1:] == ["assembly"]
    text = assembly_reference() if is_assembly else bundle_reference()
    sys.stdout.write(text)
