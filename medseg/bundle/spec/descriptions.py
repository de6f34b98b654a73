"""The sentences behind fields of the spec, as descriptions in its JSON Schema.

pydantic can take them from the source itself, but then every import of the spec reads all of it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from medseg.bundle.spec.parts import Spec


def describe_fields(
    schema: Mapping[str, Any], kind: type[Spec]
) -> dict[str, Any]:
    """Return a JSON Schema in which every field of a part of the spec has its sentence.

    Args:
        schema: As pydantic makes it.
        kind: Of what.
    """
    kinds = {each.__name__: each for each in _list_kinds(Spec)}
    described = dict(schema)
    described["properties"] = _describe(schema, kind)
    described["$defs"] = {}
    for name, part in schema["$defs"].items():
        described["$defs"][name] = part
        if name in kinds:
            properties = _describe(part, kinds[name])
            described["$defs"][name] = {**part, "properties": properties}
    return described


def _list_kinds(base: type[Spec]) -> Iterator[type[Spec]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _list_kinds(kind)


def _describe(part: Mapping[str, Any], kind: type[Spec]) -> dict[str, Any]:
    """Return the properties of a part with their sentences, in the order of keys that they had."""
    sentences: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, Spec):
            sentences |= _read_sentences(base)
    properties = dict(part["properties"])
    for name, field in kind.model_fields.items():
        key = field.alias or name
        if name in sentences and "description" not in properties[key]:
            said = {**properties[key], "description": sentences[name]}
            properties[key] = dict(sorted(said.items()))
    return properties


def _read_sentences(kind: type[Spec]) -> dict[str, str]:
    """Return field → the text that stands behind it in the source."""
    source = textwrap.dedent(inspect.getsource(kind))
    (tree,) = ast.parse(source).body
    if not isinstance(tree, ast.ClassDef):
        return {}
    sentences = {}
    field = ""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(
            node.target, ast.Name
        ):
            field = node.target.id
            continue
        if field and isinstance(node, ast.Expr):
            text = ast.literal_eval(node.value)
            sentences[field] = inspect.cleandoc(text)
        field = ""
    return sentences
