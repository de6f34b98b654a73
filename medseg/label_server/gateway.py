"""``Gateway``: stands in front of MONAI Label's server and lets through what is safe.

MONAI Label 0.8.5 asks nobody who they are, takes paths where it should take names, and hands its
DICOM server's whole API on. The gateway checks each request before MONAI Label sees it.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import (
    Awaitable,
    Callable,
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers

from medseg.label_server.audit import REQUESTER, AuditLog, Requester
from medseg.label_server.links import (
    NAME_FOR_VIEWER,
    Links,
    find_linked_case,
    take_token,
)
from medseg.label_server.login import Login
from medseg.label_server.request_body import (
    BODILESS,
    Incoming,
    check_body,
    read_media_type,
    refuse_size,
    replay_body,
    spool_body,
)
from medseg.label_server.request_checks import (
    MAX_JSON_BYTES,
    RefusedError,
    check_query,
    check_route,
)
from medseg.label_server.segment_queue import SegmentQueue, run_while_wanted
from medseg.label_server.state import StateFolder
from medseg.label_server.users import Role, User, Users, is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
HeaderList = Sequence[tuple[bytes, bytes]]

IN_MEMORY_BYTES = 1 << 20
"""How much of a request is held in memory; the rest lies on disk."""

_LENGTH = re.compile("[0-9]{1,15}")
_WITHHELD_HEADERS = frozenset(
    {
        b"authorization",
        b"cookie",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"keep-alive",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
        b"expect",
    }
)

_MAX_LOGIN_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class AccessRules:
    """What a gateway enforces.

    Attributes:
        users: Who may log in; no login is required where there are none.
        hosts: Names under which the server may be called; any where empty. Keeps pages of the
            Internet from calling a server on their visitor's machine under a name of their own.
        max_bytes: Largest request.
    """

    users: Users
    hosts: frozenset[str]
    max_bytes: int


class Gateway:
    """An ASGI application in front of another.

    Args:
        inner: MONAI Label's.
        state: The state folder; uploads pass through it.
        rules: What is enforced.
    """

    def __init__(
        self, inner: App, state: StateFolder, rules: AccessRules
    ) -> None:
        self._inner = inner
        self._state = state
        self._rules = rules
        self._audit = AuditLog(state.audit_log)
        self._login = Login(rules.users, self._audit)
        self._links = Links(rules.users)
        self._segmenting = SegmentQueue()

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a request, or forward it."""
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
        elif scope["type"] == "http":
            incoming = Incoming(scope, receive)
            try:
                await self._handle(scope, incoming, send)
            except RefusedError as refused:
                await incoming.discard()
                await _send_refusal(send, refused)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._check_origin(headers)
        path = scope["path"].rstrip("/")
        if path == "/auth":
            await self._describe_login(send)
            return
        if path == "/auth/token" and scope["method"] == "POST":
            await self._log_in(scope, receive, send)
            return
        authorization = headers.get("authorization", "")
        address = _client_address(scope)
        query, link = take_token(scope["query_string"].decode("latin-1"))
        scope = {**scope, "query_string": query.encode("latin-1")}
        if link and not authorization:
            user = self._follow_link(scope, link, address)
        else:
            user = await self._login.identify(authorization, address)
            self._offer_links(authorization)
        REQUESTER.set(Requester(user.name, address, user.role))
        if path == "/auth/token/valid":
            about = {"username": user.name, "role": user.role.word}
            await _send_json(send, 200, about)
        elif path == "/auth/logout" and scope["method"] == "POST":
            self._rules.users.log_out(authorization.partition(" ")[2].strip())
            await _send_json(send, 200, {"detail": "logged out"})
        else:
            await self._forward(scope, receive, send, user.role)

    def _follow_link(self, scope: Scope, token: str, address: str) -> User:
        """Return the person for whom a link was made.

        Raises:
            RefusedError: If it is none, or for something else.
        """
        query = scope["query_string"].decode("latin-1")
        case = find_linked_case(scope["method"], scope["path"], query)
        user = None
        if case is not None:
            user = self._links.find_user(token, case)
        if user is None:
            self._login.refuse_link(address)
        return user

    def _offer_links(self, authorization: str) -> None:
        """Answer cases with links to people who logged in for a token, which no browser does."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return
        login = self._rules.users.identify_login(token.strip())
        if login is not None:
            NAME_FOR_VIEWER.set(partial(self._links.add_token, login))

    def _check_origin(self, headers: Headers) -> None:
        host = _parse_host("//" + headers.get("host", ""), "Host")
        allowed = self._rules.hosts
        if allowed and host[0] not in allowed:
            raise RefusedError(
                403,
                f"this server does not answer to the name '{host[0][:100]}'",
            )
        origin = headers.get("origin", "")
        if origin and not _is_same_site(_parse_host(origin, "Origin"), host):
            raise RefusedError(
                403, "pages of other sites may not call this server"
            )

    async def _describe_login(self, send: Send) -> None:
        required = self._rules.users.login_required
        await _send_json(
            send, 200, {"enabled": required, "client_id": "medseg", "realm": ""}
        )

    async def _log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as body:
            await spool_body(receive, body, _MAX_LOGIN_BYTES)
            body.seek(0)
            text = body.read().decode("utf-8", "replace")
        form = dict(parse_qsl(text))
        name = form.get("username", "")
        password = form.get("password", "")
        address = _client_address(scope)
        user = await self._login.check_password(name, password, address)
        token = self._rules.users.issue_token(user)
        await _send_json(
            send, 200, {"access_token": token, "token_type": "bearer"}
        )

    async def _forward(
        self, scope: Scope, receive: Receive, send: Send, role: Role
    ) -> None:
        _check_target(scope, role)
        self._check_length(Headers(scope=scope))
        if scope["method"] in BODILESS:
            scope = {**scope, "headers": _drop_type(scope["headers"])}
        headers = Headers(scope=scope)
        most = self._rules.max_bytes
        folder = self._state.uploads
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.SpooledTemporaryFile(
            IN_MEMORY_BYTES, dir=str(folder)
        ) as body:
            await spool_body(receive, body, _choose_limit(headers, most))
            await check_body(headers, body)
            if _stores_dicom(scope):
                self._audit.write(
                    "DICOM stored through the proxy", bytes=body.tell()
                )
            inner_scope = {
                **scope,
                "headers": _make_inner_headers(scope, body.tell()),
            }

            async def answer(rest: Receive, send: Send) -> None:
                await self._inner(inner_scope, replay_body(body, rest), send)

            if not scope["path"].startswith("/infer/"):
                await answer(receive, send)
                return
            requester = REQUESTER.get()
            async with self._segmenting.admit(
                f"{requester.user} {requester.address}"
            ):
                await run_while_wanted(answer, receive, send)

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if "content-length" in headers and "transfer-encoding" in headers:
            raise RefusedError(
                400, "a request has a length or is chunked, not both"
            )
        if not _LENGTH.fullmatch(length) or int(length) > self._rules.max_bytes:
            refuse_size(self._rules.max_bytes)


def _choose_limit(headers: Headers, max_bytes: int) -> int:
    """Return how large a request of this type may be: images are large, parameters are not."""
    if read_media_type(headers).startswith("multipart/"):
        return max_bytes
    return min(max_bytes, MAX_JSON_BYTES)


def _parse_host(address: str, header: str) -> tuple[str, str]:
    """Return host and port of an address, as a header holds it.

    Raises:
        RefusedError: If it is none.
    """
    try:
        parts = urlsplit(address)
        port = "" if parts.port is None else str(parts.port)
    except ValueError as error:
        raise RefusedError(
            400, f"the header '{header}' holds no address"
        ) from error
    return parts.hostname or "", port


def _is_same_site(origin: tuple[str, str], host: tuple[str, str]) -> bool:
    """Tell whether a page comes from this server; loopback has several names."""
    if origin == host:
        return True
    are_loopback = is_loopback(origin[0]) and is_loopback(host[0])
    return are_loopback and origin[1] == host[1]


def _make_inner_headers(scope: Scope, length: int) -> HeaderList:
    """Return a request's headers as MONAI Label gets them.

    The body has been received, so that its length is known, and the login has been checked, so
    that nobody behind needs it. What described the connection would describe another one there.
    """
    kept = [
        (name, value)
        for name, value in scope["headers"]
        if name.lower() not in _WITHHELD_HEADERS
    ]
    return [*kept, (b"content-length", str(length).encode())]


def _drop_type(headers: HeaderList) -> HeaderList:
    """Return headers without the type of a body."""
    return [
        (name, value)
        for name, value in headers
        if name.lower() != b"content-type"
    ]


def _check_target(scope: Scope, role: Role) -> None:
    """Check the route and the query of a request, and whether the person may make it."""
    method = scope["method"]
    path = scope["path"]
    raw_path = scope.get("raw_path") or path.encode()
    needed = check_route(method, path, raw_path.decode("latin-1"))
    if role < needed:
        raise RefusedError(
            403,
            f"this takes the role {needed.word}, and you have the role {role.word}",
        )
    query = scope["query_string"].decode("latin-1")
    parameters = parse_qsl(query, keep_blank_values=True)
    check_query(parameters)


def _stores_dicom(scope: Scope) -> bool:
    path = str(scope["path"])
    return scope["method"] == "POST" and path.startswith("/proxy/")


def _client_address(scope: Scope) -> str:
    client: Sequence[Any] = scope.get("client") or ("",)
    return str(client[0])


async def _send_refusal(send: Send, refused: RefusedError) -> None:
    headers = [
        (name.encode(), value.encode())
        for name, value in refused.headers.items()
    ]
    await _send_json(send, refused.status, {"detail": refused.reason}, headers)


async def _send_json(
    send: Send, status: int, content: object, headers: HeaderList = ()
) -> None:
    body = json.dumps(content).encode()
    length = str(len(body)).encode()
    every_header = [
        (b"content-type", b"application/json"),
        (b"content-length", length),
        *headers,
    ]
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": every_header,
        }
    )
    await send({"type": "http.response.body", "body": body})
