"""``Guard``: stands before MONAI Label's server and lets through what is safe.

MONAI Label 0.8.5 asks nobody who they are, takes paths where it should take names, and hands its
DICOM server's whole API on. The guard checks each request before MONAI Label sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from medseg.label_server.audit import ASKER, Asker, Audit
from medseg.label_server.request_checks import (
    RefusedError,
    check_file_name,
    check_json,
    check_query,
    check_route,
)
from medseg.label_server.state import State
from medseg.label_server.users import Users

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

IN_MEMORY = 1 << 20
"""Bytes of a request that are held in memory; the rest lies on disk."""
CHUNK = 1 << 18

_PENALTY_SECONDS = 1.0
_MOST_DISCARDED = 1 << 26
_DISCARD_SECONDS = 10.0
_MOST_FIELDS = 100


@dataclass(frozen=True, slots=True)
class Rules:
    """What a guard enforces.

    Attributes:
        users: Who may log in; nobody is asked where there are none.
        hosts: Names under which the server may be called; any where empty. Keeps pages of the
            Internet from calling a server on their visitor's machine under a name of their own.
        most_bytes: Largest request.
    """

    users: Users
    hosts: frozenset[str]
    most_bytes: int


class _Incoming:
    """A request's body as it comes, and whether all of it has come."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._is_over = receive, False

    async def __call__(self) -> Message:
        message = await self._receive()
        self._is_over = not message.get("more_body", False)
        return message

    async def discard(self) -> None:
        """Read the rest away, within bounds.

        Most clients send a whole request before they read: answered earlier, they see a broken
        connection in place of the reason.
        """
        left = _MOST_DISCARDED
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                while not self._is_over and left > 0:
                    left -= len((await self()).get("body", b""))


class Guard:
    """An ASGI application in front of another.

    Args:
        inner: MONAI Label's.
        state: The state folder; uploads pass through it.
        rules: What is enforced.
    """

    def __init__(self, inner: App, state: State, rules: Rules) -> None:
        self._inner, self._state, self._rules = inner, state, rules
        self._audit = Audit(state.audit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
        elif scope["type"] == "http":
            incoming = _Incoming(receive)
            try:
                await self._checked(scope, incoming, send)
            except RefusedError as refused:
                await incoming.discard()
                await _answer(send, refused.code, {"detail": refused.why})

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._check_origin(headers)
        path = scope["path"].rstrip("/")
        if path == "/auth":
            asked = self._rules.users.are_asked
            await _answer(send, 200, {"enabled": asked, "client_id": "medseg", "realm": ""})
        elif path == "/auth/token" and scope["method"] == "POST":
            await self._log_in(scope, receive, send)
        elif (asker := self._asker(scope, headers)) is None:
            await asyncio.sleep(_PENALTY_SECONDS if headers.get("authorization") else 0)
            login = [(b"www-authenticate", b'Basic realm="medseg label"')]
            await _answer(send, 401, {"detail": "log in first"}, login)
        elif path == "/auth/token/valid":
            await _answer(send, 200, {"username": asker.user})
        else:
            ASKER.set(asker)
            await self._hand_on(scope, receive, send, headers)

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        raw = scope.get("raw_path") or scope["path"].encode()
        check_route(scope["method"], scope["path"], raw.decode("latin-1"))
        check_query(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        self._state.uploads.mkdir(parents=True, exist_ok=True)
        with tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(self._state.uploads)) as body:
            await self._store(receive, body, self._limit(headers))
            await _check_body(headers, body)
            if scope["path"].startswith("/proxy/") and scope["method"] == "POST":
                self._audit.write("DICOM stored through the proxy", bytes=body.tell())
            await self._inner(scope, _replayed(body, receive), send)

    def _check_origin(self, headers: Headers) -> None:
        host = urlsplit(f"//{headers.get('host', '')}")
        if self._rules.hosts and host.hostname not in self._rules.hosts:
            raise RefusedError(403, f"this server is not called '{(host.hostname or '')[:100]}'")
        origin = headers.get("origin")
        if origin and urlsplit(origin).netloc != host.netloc:
            raise RefusedError(403, "pages of other sites may not call this server")

    def _asker(self, scope: Scope, headers: Headers) -> Asker | None:
        client: Sequence[Any] = scope.get("client") or ("",)
        if not self._rules.users.are_asked:
            return Asker(address=str(client[0]))
        name = self._rules.users.known_by(headers.get("authorization", ""))
        return Asker(name, str(client[0])) if name else None

    async def _log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as body:
            await self._store(receive, body, 10_000)
            body.seek(0)
            said = dict(parse_qsl(body.read().decode("utf-8", "replace")))
        name = said.get("username", "")
        token = self._rules.users.log_in(name, said.get("password", ""))
        if token is None:
            ASKER.set(Asker("", str((scope.get("client") or ("",))[0])))
            self._audit.write("login refused", name=name[:100])
            await asyncio.sleep(_PENALTY_SECONDS)
            await _answer(send, 401, {"detail": "wrong name or password"})
        else:
            await _answer(send, 200, {"access_token": token, "token_type": "bearer"})

    def _limit(self, headers: Headers) -> int:
        said = headers.get("content-length", "0")
        if not said.isdigit() or int(said) > self._rules.most_bytes:
            self._refuse_size()
        return self._rules.most_bytes

    def _refuse_size(self) -> None:
        most = self._rules.most_bytes
        raise RefusedError(413, f"uploads of at most {most / 1e6:.0f} MB are taken (--max-upload)")

    async def _store(self, receive: Receive, body: IO[bytes], limit: int) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "the client went away before its request was whole")
            body.write(message.get("body", b""))
            if body.tell() > limit:
                self._refuse_size()
            more = message.get("more_body", False)


async def _check_body(headers: Headers, body: IO[bytes]) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    size = body.seek(0, 2)
    if kind == "multipart/form-data":
        await _check_form(headers, body)
    elif kind != "multipart/related" and size:
        body.seek(0)
        check_json(body.read(size))
    body.seek(0, 2)


async def _check_form(headers: Headers, body: IO[bytes]) -> None:
    parser = MultiPartParser(headers, _chunks(body), max_fields=_MOST_FIELDS)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise RefusedError(400, "the form cannot be read") from error
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            check_file_name(value.filename)
        elif key in ("params", "info"):
            check_json(value)
        else:
            check_query([(key, value)])
    await form.close()


async def _chunks(body: IO[bytes]) -> AsyncGenerator[bytes, None]:
    body.seek(0)
    while chunk := body.read(CHUNK):
        yield chunk
    yield b""


def _replayed(body: IO[bytes], receive: Receive) -> Receive:
    """Return what gives the stored request to MONAI Label as if it came now."""
    body.seek(0)
    is_over = False

    async def replay() -> Message:
        nonlocal is_over
        if is_over:
            return await receive()
        chunk = body.read(CHUNK)
        is_over = len(chunk) < CHUNK
        return {"type": "http.request", "body": chunk, "more_body": not is_over}

    return replay


async def _answer(
    send: Send, code: int, content: object, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    body = json.dumps(content).encode()
    kind = (b"content-type", b"application/json")
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": code, "headers": [kind, length, *headers]})
    await send({"type": "http.response.body", "body": body})
