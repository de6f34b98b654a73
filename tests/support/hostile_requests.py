"""Requests that nobody would make who means well, made of a server's own description of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from support.label_servers import encode_form

VALUES = (
    "../../../../etc/passwd",
    "..%2f..%2fserved",
    "..\\..\\served",
    "/etc/passwd",
    "a/../../served",
    "a\0.nii.gz",
    "a\r\nX-Evil: 1",
    "%",
    "~root",
    "x" * 5000,
    "-1",
    "1e999",
    "[]",
    '{"a": 1}',
    "null",
    "\U0001f4a3",
    "' OR 1=1; DROP TABLE cases; --",
)
"""Paths to elsewhere, control characters, far too much, other types, and another language."""

BODIES = (
    b"[]",
    b"null",
    b'"x"',
    b"1e999",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"image": ["../x"]}',
    b'{"image": {"a": "../x"}}',
    b'{"images": {}, "multi_gpu": []}',
    b'{"client_id": {"a": 1}}',
    b'{"client_id": ' + b"9" * 5000 + b"}",
    b'{"strategy": "../x"}',
    b'{"model": 3, "path": "/etc"}',
)

HEADERS: tuple[Mapping[str, str], ...] = (
    {"host": "["},
    {"host": "evil.example"},
    {"origin": "http://["},
    {"origin": "null"},
    {"origin": "http://evil.example"},
    {"x-forwarded-for": "127.0.0.1", "x-forwarded-host": "evil.example"},
    {"x-http-method-override": "DELETE", "x-original-url": "/logs/"},
    {"content-type": "multipart/form-data"},
    {"content-type": "multipart/form-data; boundary=" + "x" * 5000},
    {"content-type": "application/json; charset=utf-7"},
    {"content-encoding": "gzip"},
    {"range": "bytes=0-,0-,0-,0-"},
    {"if-modified-since": "x", "if-none-match": "*"},
    {"authorization": "Basic " + "x" * 5000},
    {"authorization": "Bearer ../x"},
    {"cookie": "session=../x; MONAILABEL_SERVER_URL=http://evil.example"},
    {"accept": "../x", "accept-encoding": "x" * 1000},
    {"upgrade": "websocket", "connection": "upgrade"},
    {"expect": "x"},
)

KNOWN = {
    "image": "nobody",
    "label": "nobody",
    "id": "nobody",
    "tag": "final",
    "model": "nobody",
    "strategy": "first",
    "method": "nobody",
    "session_id": "nobody",
}
"""What stands in the parameters that are not attacked: names of nothing, so nothing is done."""


@dataclass(frozen=True)
class Attack:
    """One request."""

    method: str
    target: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def list_attacks(schema: Mapping[str, Any]) -> Iterator[Attack]:
    """Yield attacks on every parameter, body and header of each operation of an OpenAPI schema."""
    for path, operations in schema["paths"].items():
        for verb, operation in operations.items():
            method = verb.upper()
            yield from _attack_parameters(method, path, operation)
            yield from _attack_body(method, path, operation, schema)
            target = _fill(path, operation, {})
            for headers in HEADERS:
                yield Attack(method, target, b"{}", headers)


def _attack_parameters(
    method: str, path: str, operation: Mapping[str, Any]
) -> Iterator[Attack]:
    for parameter in operation.get("parameters", ()):
        for value in VALUES:
            target = _fill(path, operation, {parameter["name"]: value})
            yield Attack(
                method, target, b"{}", {"content-type": "application/json"}
            )


def _attack_body(
    method: str,
    path: str,
    operation: Mapping[str, Any],
    schema: Mapping[str, Any],
) -> Iterator[Attack]:
    if "requestBody" not in operation:
        return
    target = _fill(path, operation, {})
    for body in BODIES:
        yield Attack(method, target, body, {"content-type": "application/json"})
    for name, is_file in _list_fields(operation, schema):
        for value in VALUES:
            file = (value.replace('"', ""), b"nonsense")
            fields = {} if is_file else {name: value}
            files = {name: file} if is_file else {}
            body, kind = encode_form(fields, files)
            yield Attack(method, target, body, {"content-type": kind})
        if not is_file:
            for text in BODIES:
                fields = {name: text.decode("latin-1")}
                body, kind = encode_form(fields, {})
                yield Attack(method, target, body, {"content-type": kind})


def _fill(
    path: str, operation: Mapping[str, Any], given: Mapping[str, str]
) -> str:
    query = {}
    for parameter in operation.get("parameters", ()):
        name = parameter["name"]
        value = given.get(name, KNOWN.get(name))
        if value is None:
            continue
        if parameter["in"] == "path":
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        else:
            query[name] = value
    return f"{path}?{urlencode(query)}" if query else path


def _list_fields(
    operation: Mapping[str, Any], schema: Mapping[str, Any]
) -> Iterator[tuple[str, bool]]:
    """Yield the fields of an operation's form, and whether each is a file."""
    for content in operation["requestBody"]["content"].values():
        reference = content["schema"].get("$ref", "").rpartition("/")[2]
        described = schema["components"]["schemas"].get(reference, {})
        for name, about in described.get("properties", {}).items():
            text = json.dumps(about)
            yield name, "binary" in text or "octet-stream" in text
