"""What requests may ask for: which routes are open, and what names and files may say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from medseg.datasets.names import split_suffix
from medseg.label_server.state import is_plain

_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_DICOM = r"(?:studies|series|instances)(?:/[A-Za-z0-9._,/-]*)?"

OPEN = [
    (methods.split(), re.compile(pattern))
    for methods, pattern in (
        ("GET", r"/|/favicon\.ico|/openapi\.json|/docs"),
        ("GET", r"/info/?|/medseg/versions"),
        ("POST", rf"/medseg/promote/[0-9]{{1,4}}|/activelearning/{_NAME}|/infer/{_NAME}"),
        ("GET HEAD PUT", r"/datastore/(?:image|label)?"),
        ("GET PUT", r"/datastore/(?:image|label)/info"),
        ("GET", r"/datastore/dataset"),
        ("PUT", r"/datastore/updatelabelinfo"),
        ("GET POST DELETE", rf"/(?:train|scoring)/(?:{_NAME})?"),
        ("GET DELETE", r"/batch/infer"),
        ("POST", rf"/batch/infer/{_NAME}"),
        ("GET PUT DELETE", rf"/session/(?:{_NAME})?"),
        ("GET", rf"/model/(?:info/)?{_NAME}"),
        ("GET HEAD", r"/(?:ohif|static)(?:/[A-Za-z0-9._@/-]*)?"),
        ("GET", rf"/proxy/dicom/(?:(?:wado|qido)/)?{_DICOM}"),
        ("POST", r"/proxy/dicom/(?:(?:wado|stow)/)?studies(?:/[0-9.]{1,64})?"),
    )
]
"""What can be asked of MONAI Label's server. Closed among others: exchanging or deleting weights,
deleting images and labels, its log with its names, and every other address behind the proxy."""

NAMES = frozenset(
    [
        "image",
        "id",
        "label",
        "tag",
        "label_tag",
        "session_id",
        "strategy",
        "method",
        "model",
        "result_extension",
    ]
)
"""Parameters that name something, and so must be plain names, wherever they stand."""

PATHS = frozenset(["file", "path", "session", "bundle_path", "app_dir", "studies"])
"""Parameters that would lead MONAI Label to files of the server's; no client needs them."""

MOST_JSON = 1 << 20
"""Bytes of JSON in a request at most."""


class RefusedError(Exception):
    """A request that is not let through.

    Args:
        code: The HTTP status.
        why: What came, and what is allowed.
    """

    def __init__(self, code: int, why: str) -> None:
        self.code, self.why = code, why
        super().__init__(why)


def check_route(method: str, path: str, raw_path: str) -> None:
    """Refuse what is not open.

    Args:
        method: The HTTP method.
        path: The decoded path.
        raw_path: The path as it was sent.

    Raises:
        RefusedError: Says what.
    """
    decoded = unquote(unquote(raw_path))
    if ".." in decoded or "\\" in decoded or "\0" in decoded or decoded != unquote(raw_path):
        raise RefusedError(400, "this path leads out of where it should")
    if not any(method in methods and pattern.fullmatch(path) for methods, pattern in OPEN):
        raise RefusedError(403, f"{method} {path[:100]} is closed in medseg label")


def check_query(pairs: Iterable[tuple[str, str]]) -> None:
    """Refuse names that are none.

    Raises:
        RefusedError: Says which.
    """
    for key, value in pairs:
        _check_name(key, value)
        if key == "uncompress" and value.lower() not in ("", "false", "0"):
            raise RefusedError(400, "archives are not unpacked; send the image's own files")


def check_json(text: bytes | str) -> None:
    """Refuse JSON that is too large, is no object, or names what it must not.

    Raises:
        RefusedError: Says what.
    """
    if len(text) > MOST_JSON:
        raise RefusedError(413, f"parameters of more than {MOST_JSON >> 20} MB")
    try:
        said = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "parameters must be JSON") from error
    if said is None:
        return
    if not isinstance(said, dict):
        raise RefusedError(400, "parameters must be a JSON object")
    _check_said(said)
    for value in said.values():  # settings by model
        if isinstance(value, dict):
            _check_said(value)


def _check_said(said: Mapping[str, Any]) -> None:
    for key, value in said.items():
        _check_name(key, value)
        if key in PATHS and value not in (None, ""):
            raise RefusedError(400, f"the parameter '{key}' is not taken from clients")


def _check_name(key: str, value: object) -> None:
    if key not in NAMES or value in (None, ""):
        return
    plain = (
        value.removeprefix(".") if key == "result_extension" and isinstance(value, str) else value
    )
    if not is_plain(plain):
        raise RefusedError(
            400, f"'{key}' must be a plain name: letters, digits, '.', '_' and '-', no path"
        )


def check_file_name(name: str | None) -> None:
    """Refuse names of uploads that lead elsewhere or are no images.

    3D Slicer sends the whole path on its own machine, of which only the ending is used.

    Raises:
        RefusedError: Says why.
    """
    text = name or ""
    parts = PurePosixPath(text).parts
    if ".." in parts or "\\" in text or not text.isprintable():
        raise RefusedError(400, "an upload's file name must not lead to another folder")
    last = parts[-1] if parts else ""
    if not split_suffix(last)[1] and not last.lower().endswith(".dcm"):
        raise RefusedError(
            400, "uploads are images: .nii.gz, .nii, .nrrd, .seg.nrrd, .mha, .dcm or pictures"
        )
