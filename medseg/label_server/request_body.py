"""The body of a request: received whole and checked before MONAI Label sees it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import IO, Any, NoReturn
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from medseg.label_server.request_checks import (
    MAX_JSON_BYTES,
    RefusedError,
    check_file_name,
    check_json,
    check_query,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

CHUNK_BYTES = 1 << 18
SILENT_SECONDS = 30.0
"""How long a client may send nothing in the middle of a request."""
SLOWEST_PER_SECOND = 10_000
"""Bytes that must come per second on average, once the first seconds have passed."""
_MAX_FORM_FIELDS = 100
FORM_TYPE = "application/x-www-form-urlencoded"
"""Of the forms of medseg's own pages."""
BODILESS = frozenset({"GET", "HEAD"})
"""Methods of requests without a body."""

_MAX_DISCARDED_BYTES = 1 << 26
_MAX_DISCARD_SECONDS = 10.0


class Incoming:
    """Receives a request's body, and knows whether all of it has come.

    Some requests have none, whatever their headers say: 3D Slicer's client repeats the length of an
    upload with the next question, and would wait for an answer while the server waits for a body.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._has_body = scope["method"] not in BODILESS
        self._is_complete = not self._has_body

    async def __call__(self) -> Message:
        """Receive the next part."""
        if not self._has_body:
            self._has_body = True  # what comes next is that the client has gone
            return {"type": "http.request", "body": b"", "more_body": False}
        message = await self._receive()
        self._is_complete = not message.get("more_body", False)
        return message

    async def discard(self) -> None:
        """Read the rest and drop it, within bounds.

        Most clients send a whole request before they read: answered earlier, they see a broken
        connection in place of the reason.
        """
        remaining = _MAX_DISCARDED_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MAX_DISCARD_SECONDS):
                while not self._is_complete and remaining > 0:
                    message = await self()
                    remaining -= len(message.get("body", b""))


def refuse_size(max_bytes: int) -> NoReturn:
    """Refuse a request for its size."""
    megabytes = max_bytes / 1e6
    raise RefusedError(
        413, f"the request is larger than {megabytes:g} MB (see --max-upload)"
    )


async def spool_body(receive: Receive, body: IO[bytes], max_bytes: int) -> None:
    """Write a request's body, of whatever length, into a file.

    Raises:
        RefusedError: If it is too large, or comes too slowly.
    """
    more = True
    began = time.monotonic()
    while more:
        seconds = time.monotonic() - began
        is_slow = body.tell() < (seconds - SILENT_SECONDS) * SLOWEST_PER_SECOND
        try:
            async with asyncio.timeout(0 if is_slow else SILENT_SECONDS):
                message = await receive()
        except TimeoutError as error:
            raise RefusedError(
                408, "the request came too slowly; send it again"
            ) from error
        if message["type"] == "http.disconnect":
            raise RefusedError(
                400, "the client disconnected before its request was complete"
            )
        body.write(message.get("body", b""))
        if body.tell() > max_bytes:
            refuse_size(max_bytes)
        more = message.get("more_body", False)


def read_media_type(headers: Headers) -> str:
    """Return the type of a request's body, without its parameters."""
    content_type = headers.get("content-type", "")
    media_type, _, _ = content_type.partition(";")
    return media_type.strip().lower()


async def check_body(headers: Headers, body: IO[bytes]) -> None:
    """Check a request's whole body.

    Raises:
        RefusedError: If it holds what it must not.
    """
    match read_media_type(headers):
        case "multipart/form-data":
            # In a thread: reading a large form through keeps others waiting.
            check = functools.partial(asyncio.run, _check_form(headers, body))
            await asyncio.to_thread(check)
        case "multipart/related":
            pass  # DICOM on its way to the proxy (STOW-RS)
        case media_type if media_type == FORM_TYPE:
            body.seek(0)
            _check_fields(body.read(MAX_JSON_BYTES + 1))
        case _:
            body.seek(0)
            check_json(body.read(MAX_JSON_BYTES + 1))
    body.seek(0, os.SEEK_END)


def _check_fields(text: bytes) -> None:
    """Check the fields of a form, such as one of medseg's own pages.

    MONAI Label takes its forms so, too; and older parsers take a semicolon for what parts fields,
    which browsers send as ``%3B``.
    """
    if b";" in text:
        raise RefusedError(400, "the form cannot be read")
    try:
        fields = parse_qsl(
            text.decode(),
            keep_blank_values=True,
            max_num_fields=_MAX_FORM_FIELDS,
            encoding="utf-8",
            errors="strict",
        )
    except ValueError as error:
        raise RefusedError(400, "the form cannot be read") from error
    for key, value in fields:
        _check_field(key, value)


async def _check_form(headers: Headers, body: IO[bytes]) -> None:
    parser = MultiPartParser(
        headers, _read_chunks(body), max_fields=_MAX_FORM_FIELDS
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise RefusedError(400, "the form cannot be read") from error
    try:
        for key, value in form.multi_items():
            _check_field(key, value)
    finally:
        await form.close()


def _check_field(key: str, value: UploadFile | str) -> None:
    if isinstance(value, UploadFile):
        check_file_name(value.filename)
    elif key in ("params", "info"):
        check_json(value, may_be_null=False)
    else:
        check_query([(key, value)])


async def _read_chunks(body: IO[bytes]) -> AsyncGenerator[bytes, None]:
    body.seek(0)
    while chunk := body.read(CHUNK_BYTES):
        yield chunk
    yield b""


def replay_body(body: IO[bytes], receive: Receive) -> Receive:
    """Return a function that gives MONAI Label the stored request as if it came now."""
    body.seek(0)
    is_complete = False

    async def receive_stored() -> Message:
        nonlocal is_complete
        if is_complete:
            return await receive()
        chunk = body.read(CHUNK_BYTES)
        is_complete = len(chunk) < CHUNK_BYTES
        return {
            "type": "http.request",
            "body": chunk,
            "more_body": not is_complete,
        }

    return receive_stored
