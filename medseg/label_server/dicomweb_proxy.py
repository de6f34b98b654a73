"""``DicomWebProxy``: hands viewers' DICOMweb requests on to the DICOMweb server.

A viewer in the browser reads scans and stores segmentations through this server, because pages may
not call other hosts. Nothing of a viewer's request is copied: method, path, query and headers are
made anew from parts that were understood, so that no request can hide another one, and none
reaches what the DICOMweb server offers besides DICOMweb. People's own logins stay here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Self
from urllib.parse import parse_qsl, urlencode

import anyio.to_thread
import httpx
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from medseg.errors import OutputError
from medseg.label_server.audit import LOCAL, REQUESTER
from medseg.label_server.dicomweb_connection import (
    CONNECT_SECONDS,
    READ_SECONDS,
)
from medseg.label_server.environment import read_dicomweb_login
from medseg.label_server.request_checks import RefusedError

MOST_QUERY_PARAMETERS = 100
LONGEST_QUERY_VALUE = 1024

_UID = r"[0-9]+(?:\.[0-9]+)*"
_RENDERED = r"(?:/(?:rendered|thumbnail|metadata))?"
_INSTANCE = (
    rf"/instances/{_UID}"
    rf"(?:/(?:rendered|thumbnail|metadata|frames/[0-9]+(?:,[0-9]+)*{_RENDERED}"
    r"|(?:bulk|bulkdata)(?:/[0-9A-Za-z]+)+))?"
)
_SERIES = rf"/series/{_UID}(?:{_RENDERED}|/instances|{_INSTANCE})"
_READABLE = re.compile(
    r"(?:studies|series|instances"
    rf"|studies/{_UID}(?:{_RENDERED}|/series|/instances|{_SERIES}))"
)
"""Resources of PS3.18 (QIDO-RS, WADO-RS) that may be read."""
_STORABLE = re.compile(rf"studies(?:/{_UID})?")
"""Resources of PS3.18 (STOW-RS) to which may be stored."""
_LONGEST_UID = 64
_SERVICES = ("wado/", "qido/", "stow/")
"""MONAI Label's viewers put the service before the path; the path alone says as much."""

_PARAMETER = re.compile(r"[0-9A-Za-z]+(?:\.[0-9A-Za-z]+)*")
"""An attribute's keyword or tag, or one of the standard's own words such as ``limit``."""
_ACCEPT = re.compile(r"[A-Za-z0-9 !#$&^_.+*/;=,\"-]{1,1000}")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=?-]{1,70}")

_STORED_UID = re.compile(
    rb"00081155.{1,200}?([0-9]{1,64}(?:\.[0-9]{1,64})+)", re.DOTALL
)
"""A Referenced SOP Instance UID in the answer of STOW-RS (PS3.18, 10.5.3), in JSON or XML."""
_REFERENCED, _FAILED = b"00081199", b"00081198"
"""The sequences there of what was stored, and of what was not."""
MOST_ANSWER_BYTES = 1 << 24
"""Of an answer to what was stored; it names each instance."""

_RETURNED = ("content-type", "content-encoding", "content-length", "etag")
"""Headers of the answer that are handed back; among the others are cookies and addresses."""

_SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    # A document stored as DICOM may be a page; it must not act as one of this server's own.
    "content-security-policy": "sandbox; default-src 'none'",
    "cache-control": "private, no-store",
}


@dataclass(frozen=True, slots=True)
class DicomWebRequest:
    """What is asked of the DICOMweb server.

    Attributes:
        method: ``GET`` or ``POST``.
        path: Below the server's DICOMweb root, without a leading slash.
        query: Encoded; may be empty.
        headers: ``accept``, and ``content-type`` of what is stored.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]

    @classmethod
    def parse(
        cls, method: str, path: str, query: str, headers: Mapping[str, str]
    ) -> Self:
        """Understand a viewer's request.

        Args:
            method: ``GET`` or ``POST``.
            path: Below ``/proxy``, decoded.
            query: As sent, without the question mark.
            headers: As sent, by their names in lower case.

        Raises:
            RefusedError: If the method, path or query is not one of DICOMweb.
        """
        resource = _parse_path(method, path)
        sent = {}
        accept = headers.get("accept", "")
        if _ACCEPT.fullmatch(accept):
            sent["accept"] = accept
        if method == "POST":
            sent["content-type"] = _parse_content_type(
                headers.get("content-type", "")
            )
        return cls(method, resource, _parse_query(query), sent)


class DicomWebProxy:
    """An ASGI application that serves a DICOMweb server's studies.

    Args:
        url: The DICOMweb server's root; ``None`` where the cases are files.
        note_author: Told of the SOP instance UIDs that a person who logged in has stored.
    """

    def __init__(
        self,
        url: str | None,
        note_author: Callable[[Sequence[str], str], None] | None = None,
    ) -> None:
        self._root = None if url is None else url.rstrip("/")
        self._note_author = note_author
        self._client: httpx.AsyncClient | None = None

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a request below ``/proxy``."""
        request = Request(scope, receive)
        response = await self._answer(request)
        await response(scope, receive, send)

    async def close(self) -> None:
        """End the connections to the DICOMweb server; the next request opens new ones."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _answer(self, request: Request) -> Response:
        if self._root is None:
            return _explain(
                404, "the cases are files; there is no DICOMweb server"
            )
        root_path = str(request.scope.get("root_path", ""))
        path = str(request.scope["path"]).removeprefix(root_path)
        query = request.scope["query_string"].decode("latin-1")
        try:
            wanted = DicomWebRequest.parse(
                request.method, path, query, request.headers
            )
            return await self._ask(self._root, wanted, request)
        except RefusedError as refused:
            return _explain(refused.status, refused.reason)
        except ClientDisconnect:
            return _explain(400, "the client disconnected")
        except httpx.HTTPError:
            return _explain(502, "the DICOMweb server did not answer")

    async def _ask(
        self, root: str, wanted: DicomWebRequest, request: Request
    ) -> Response:
        address = f"{root}/{wanted.path}"
        if wanted.query:
            address = f"{address}?{wanted.query}"
        headers = dict(wanted.headers)
        body = None
        if wanted.method == "POST":
            # The gateway has received all of it and says how long it is; httpx sends no more.
            headers["content-length"] = request.headers["content-length"]
            body = request.stream()
        client = self._open_client()
        asked = client.build_request(
            wanted.method, address, headers=headers, content=body
        )
        answer = await client.send(asked, stream=True)
        # Whatever it would have kept of the answer belongs to one person's request.
        client.cookies.clear()
        if wanted.method == "POST" and answer.is_success:
            return await self._hand_back_stored(answer)
        return await _hand_back(answer)

    async def _hand_back_stored(self, answer: httpx.Response) -> Response:
        """Note who stored what the answer names, before it is passed on."""
        body = b""
        try:
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MOST_ANSWER_BYTES:
                    return _explain(
                        502, "the DICOMweb server answers at length"
                    )
        finally:
            await answer.aclose()
        person = REQUESTER.get().user
        # Whoever sends what is there already, and is refused, has not stored it.
        _, _, stored = body.partition(_REFERENCED)
        stored, _, _ = stored.partition(_FAILED)
        uids = [uid.decode() for uid in _STORED_UID.findall(stored)]
        if uids and self._note_author and person != LOCAL.user:
            # What was stored is stored, also where nobody learns whose it is.
            with contextlib.suppress(OutputError):
                await anyio.to_thread.run_sync(self._note_author, uids, person)
        headers = _choose_headers(answer)
        for name in ("content-encoding", "content-length"):
            headers.pop(name, None)
        return Response(body, answer.status_code, headers)

    def _open_client(self) -> httpx.AsyncClient:
        # Made with the first request, because it belongs to the loop that serves it.
        if self._client is None:
            login = read_dicomweb_login()
            self._client = httpx.AsyncClient(
                auth=None if login is None else httpx.BasicAuth(*login),
                timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
                headers={"user-agent": "medseg", "accept-encoding": "identity"},
                follow_redirects=False,
            )
        return self._client


async def _hand_back(answer: httpx.Response) -> Response:
    """Pass an answer on as it comes, without what only this server needs to know."""
    if answer.status_code in (401, 403):
        await answer.aclose()
        return _explain(
            502,
            "the DICOMweb server refuses medseg's login; whoever runs medseg label sets "
            "MEDSEG_DICOMWEB_USER and MEDSEG_DICOMWEB_PASSWORD",
        )
    if answer.is_redirect:
        await answer.aclose()
        return _explain(502, "the DICOMweb server answers from elsewhere")
    return StreamingResponse(
        answer.aiter_raw(),
        answer.status_code,
        _choose_headers(answer),
        background=BackgroundTask(answer.aclose),
    )


def _choose_headers(answer: httpx.Response) -> dict[str, str]:
    headers = dict(_SAFE_HEADERS)
    for name in _RETURNED:
        if name in answer.headers:
            headers[name] = answer.headers[name]
    return headers


def _explain(status: int, reason: str) -> Response:
    return JSONResponse({"detail": reason}, status)


# --- understanding a request --------------------------------------------------------------


def _parse_path(method: str, path: str) -> str:
    resource = path.strip("/").removeprefix("dicom/")
    for service in _SERVICES:
        resource = resource.removeprefix(service)
    allowed = _READABLE if method == "GET" else _STORABLE
    parts = re.split("[/,]", resource)
    is_short = all(len(part) <= _LONGEST_UID for part in parts)
    if (
        method not in ("GET", "POST")
        or not is_short
        or not allowed.fullmatch(resource)
    ):
        raise RefusedError(
            403,
            "only DICOMweb's own resources of studies can be read and stored",
        )
    return resource


def _parse_query(query: str) -> str:
    parameters = parse_qsl(query, keep_blank_values=True)
    if len(parameters) > MOST_QUERY_PARAMETERS:
        raise RefusedError(
            400, f"a query may have {MOST_QUERY_PARAMETERS} parameters"
        )
    for key, value in parameters:
        if not _PARAMETER.fullmatch(key):
            raise RefusedError(
                400,
                "a query's parameters are DICOM attributes, and limit, offset and the like",
            )
        if len(value) > LONGEST_QUERY_VALUE or not value.isprintable():
            raise RefusedError(
                400,
                f"a query's values are text of at most {LONGEST_QUERY_VALUE} characters",
            )
    return urlencode(parameters)


def _parse_content_type(content_type: str) -> str:
    """Return the type of what is stored, made anew from its parts."""
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_param("boundary", "")
    is_storing = (
        message.get_content_type() == "multipart/related"
        and message.get_param("type") == "application/dicom"
    )
    if (
        not is_storing
        or not isinstance(boundary, str)
        or not _BOUNDARY.fullmatch(boundary)
    ):
        raise RefusedError(
            415,
            'what is stored must be multipart/related; type="application/dicom"',
        )
    return f'multipart/related; type="application/dicom"; boundary="{boundary}"'
