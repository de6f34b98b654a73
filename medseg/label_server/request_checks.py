"""What requests may ask for: which routes are open, and what names and files may be called."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from medseg.errors import MedsegError
from medseg.io import list_readable_suffixes
from medseg.label_server.state import is_plain_name
from medseg.label_server.users import Role
from medseg.names import split_suffix

_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_DICOM = r"(?:studies|series|instances)(?:/[A-Za-z0-9._,/-]*)?"

_CASE = r"/cases/[^/]{1,200}"

_ROUTES = (
    (Role.ANNOTATOR, "GET", r"/|/favicon\.ico|/openapi\.json|/docs"),
    (Role.ANNOTATOR, "GET", rf"{_CASE}(?:/picture)?"),
    (Role.ANNOTATOR, "POST", rf"{_CASE}/(?:assign|comment|restore)"),
    (Role.REVIEWER, "POST", rf"{_CASE}/judge"),
    (Role.ANNOTATOR, "GET", r"/training(?:/progress|/curves/[0-9]{1,4})?"),
    (Role.ADMIN, "POST", r"/training/serve"),
    (
        Role.ANNOTATOR,
        "GET",
        r"/medseg/(?:pages\.(?:css|js)|studies/[0-9.]{1,64})",
    ),
    (Role.ANNOTATOR, "GET", r"/info/?|/medseg/versions"),
    (Role.ADMIN, "POST", r"/medseg/promote/[0-9]{1,4}"),
    # Only who may judge is offered what is to be judged.
    (Role.REVIEWER, "POST", r"/activelearning/second_reading"),
    (Role.ANNOTATOR, "POST", rf"/activelearning/{_NAME}|/infer/{_NAME}"),
    (Role.ANNOTATOR, "GET", r"/datastore/"),
    (Role.ANNOTATOR, "GET HEAD", r"/datastore/(?:image|label)"),
    (Role.ANNOTATOR, "PUT", r"/datastore/label"),
    (Role.ADMIN, "PUT", r"/datastore/(?:image)?"),
    (Role.ANNOTATOR, "GET PUT", r"/datastore/(?:image|label)/info"),
    (Role.REVIEWER, "GET", r"/datastore/dataset"),
    (Role.ANNOTATOR, "PUT", r"/datastore/updatelabelinfo"),
    (Role.ANNOTATOR, "GET", rf"/(?:train|scoring)/(?:{_NAME})?|/batch/infer"),
    (Role.ADMIN, "POST DELETE", rf"/train/(?:{_NAME})?"),
    (Role.REVIEWER, "POST DELETE", rf"/scoring/(?:{_NAME})?"),
    (Role.REVIEWER, "DELETE", r"/batch/infer"),
    (Role.REVIEWER, "POST", rf"/batch/infer/{_NAME}"),
    (Role.ANNOTATOR, "GET PUT DELETE", rf"/session/(?:{_NAME})?"),
    (Role.ANNOTATOR, "GET", rf"/model/info/{_NAME}"),
    (Role.ADMIN, "GET", rf"/model/{_NAME}"),
    (Role.ANNOTATOR, "GET HEAD", r"/(?:ohif|static)(?:/[A-Za-z0-9._@/-]*)?"),
    (Role.ANNOTATOR, "GET", rf"/proxy/dicom/(?:(?:wado|qido)/)?{_DICOM}"),
    (
        Role.ANNOTATOR,
        "POST",
        r"/proxy/dicom/(?:(?:wado|stow)/)?studies(?:/[0-9.]{1,64})?",
    ),
)

OPEN_ROUTES = [
    (role, methods.split(), re.compile(pattern))
    for role, methods, pattern in _ROUTES
]
"""What can be asked of MONAI Label's server, and by whom. Closed among others: exchanging or
deleting weights, deleting images and labels, its log with its names, and every other address
behind the proxy."""

NAME_PARAMETERS = frozenset(
    {
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
    }
)
"""Parameters that name something, and so must be plain names, wherever they stand."""

PATH_PARAMETERS = frozenset(
    {"file", "path", "session", "bundle_path", "app_dir", "studies"}
)
"""Parameters that would lead MONAI Label to files of the server's; no client needs them."""

MAX_JSON_BYTES = 1 << 20
MAX_TRAINING_STEPS = 1_000_000
LONGEST_FILE_NAME = 200
LONGEST_LABEL_NAME = 200
_CHECK_SUM = re.compile(r"(?:(?:MD5|SHA256|SHA512):)?[0-9A-Fa-f]{1,128}")

_ELSEWHERE = ("..", "\\", "\0")
"""What in a path could lead to another folder."""


class RefusedError(Exception):
    """A request that is not let through.

    Args:
        status: The HTTP status.
        reason: What came, and what is allowed.
        headers: Of the answer, beside its type and length.
    """

    def __init__(
        self, status: int, reason: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})
        super().__init__(reason)


def check_route(method: str, path: str, raw_path: str) -> Role:
    """Refuse what is not open; return the role that it takes.

    Args:
        method: The HTTP method.
        path: The decoded path.
        raw_path: The path as it was sent.

    Raises:
        RefusedError: If the path could lead elsewhere, or the route is closed.
    """
    decoded = unquote(raw_path)
    is_encoded_twice = unquote(decoded) != decoded
    leads_elsewhere = any(sign in decoded for sign in _ELSEWHERE)
    if is_encoded_twice or leads_elsewhere:
        raise RefusedError(
            400, "the path holds '..', '\\' or doubly encoded characters"
        )
    for role, methods, pattern in OPEN_ROUTES:
        if method in methods and pattern.fullmatch(path):
            return role
    raise RefusedError(
        403, f"{method} {path[:100]} is not available from medseg label"
    )


def check_query(pairs: Iterable[tuple[str, str]]) -> None:
    """Refuse parameters that should be plain names and are not.

    Raises:
        RefusedError: Says which.
    """
    for key, value in pairs:
        _check_name(key, value)
        if key == "check_sum" and not _CHECK_SUM.fullmatch(value):
            raise RefusedError(
                400, "'check_sum' is MD5, SHA256 or SHA512, ':' and the digest"
            )
        if key == "run_sync" and value.lower() not in ("", "false", "0"):
            raise RefusedError(
                400,
                "training, scoring and batches run in the background, one at a time; leave out "
                "'run_sync'",
            )
        if key == "uncompress" and value.lower() not in ("", "false", "0"):
            raise RefusedError(
                400,
                "archives are not unpacked; send the image files themselves",
            )


def check_json(text: bytes | str, *, may_be_null: bool = True) -> None:
    """Refuse JSON that is too large, is no object, or holds a parameter it must not.

    Args:
        text: The JSON; nothing counts as an object without parameters.
        may_be_null: Whether ``null`` counts likewise; MONAI Label stumbles over it in forms.

    Raises:
        RefusedError: Says why.
    """
    if len(text) > MAX_JSON_BYTES:
        raise RefusedError(
            413, f"parameters may have {MAX_JSON_BYTES >> 20} MB at most"
        )
    try:
        parameters = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "parameters must be JSON") from error
    if parameters is None and may_be_null:
        return
    if not isinstance(parameters, dict):
        raise RefusedError(400, "parameters must be a JSON object")
    _check_parameters(parameters)
    for value in parameters.values():
        if isinstance(value, dict):  # MONAI Label takes settings by model, too
            _check_parameters(value)


def _check_parameters(parameters: Mapping[str, Any]) -> None:
    for key, value in parameters.items():
        if not (key == "label" and _is_label_name(value)):
            _check_name(key, value)
        _check_number(key, value)
        if key in PATH_PARAMETERS and value not in (None, ""):
            raise RefusedError(
                400, f"the parameter '{key}' is not accepted from clients"
            )


def _is_label_name(value: object) -> bool:
    """Tell whether a text may name a structure, which takes more than a plain name: "left lung"."""
    if not isinstance(value, str) or len(value) > LONGEST_LABEL_NAME:
        return False
    signs = (*_ELSEWHERE, "/")
    return value.isprintable() and not any(sign in value for sign in signs)


def _check_name(key: str, value: object) -> None:
    if key not in NAME_PARAMETERS or value in (None, ""):
        return
    if key == "result_extension" and isinstance(value, str):
        value = value.removeprefix(".")
    if not is_plain_name(value):
        raise RefusedError(
            400,
            f"'{key}' must be a plain name: letters and digits, '.', '_' and '-', no path",
        )


def _check_number(key: str, value: object) -> None:
    """Refuse a training run's settings that no training run can have, before it is queued."""
    try:
        if key == "steps":
            parse_steps(value)
        elif key == "learning_rate":
            parse_learning_rate(value)
    except MedsegError as error:
        raise RefusedError(400, error.message) from error


def parse_steps(value: object) -> int:
    """Return a training run's steps.

    Raises:
        MedsegError: If they are none.
    """
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or not 1 <= value <= MAX_TRAINING_STEPS
    ):
        raise MedsegError(
            f"steps must be a whole number from 1 to {MAX_TRAINING_STEPS}"
        )
    return value


def parse_learning_rate(value: object) -> float | None:
    """Return a training run's learning rate; ``None`` stands for the bundle's own.

    Raises:
        MedsegError: If it is none.
    """
    if value is None:
        return None
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not 0 < value < math.inf
    ):
        raise MedsegError("learning_rate must be a number above 0")
    return value


def check_offers(offers: object) -> None:
    """Refuse anything but strategy → when it offered the case, and to whom.

    Raises:
        MedsegError: If it is something else.
    """
    is_sound = isinstance(offers, Mapping) and all(
        isinstance(offer, Mapping)
        and isinstance(offer.get("ts", 0), int | float)
        for offer in offers.values()
    )
    if not is_sound:
        raise MedsegError(
            "'strategy' must be an object: strategy → {ts, client_id}"
        )


def check_file_name(name: str | None) -> None:
    """Refuse names of uploads that lead elsewhere or are not those of images.

    3D Slicer sends the whole path on its own machine, of which only the suffix is used.

    Raises:
        RefusedError: Says why.
    """
    text = name or ""
    path = PurePosixPath(text)
    if len(path.name) > LONGEST_FILE_NAME:
        raise RefusedError(
            400,
            f"an upload's file name may have {LONGEST_FILE_NAME} characters",
        )
    if ".." in path.parts or "\\" in text or not text.isprintable():
        raise RefusedError(
            400, "an upload's file name must not lead to another folder"
        )
    _, suffix = split_suffix(path.name)
    if not suffix and path.suffix.lower() != ".dcm":
        suffixes = ", ".join(sorted(list_readable_suffixes()))
        raise RefusedError(
            400,
            f"an upload must be an image whose name ends in {suffixes}",
        )
