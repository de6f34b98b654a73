"""What passes the gateway, as whom, and what is left behind."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from support.asgi import Recorder, ask
from support.label_servers import encode_form

from medseg.label_server.audit import LOCAL, AuditLog, Requester
from medseg.label_server.gateway import (
    IN_MEMORY_BYTES,
    AccessRules,
    Gateway,
)
from medseg.label_server.links import NAME_FOR_VIEWER
from medseg.label_server.request_body import CHUNK_BYTES
from medseg.label_server.state import StateFolder
from medseg.label_server.users import Role, User, Users, hash_password

PASSWORD = "correct horse"
ANNA = User("anna", hash_password(PASSWORD), Role.ADMIN)
JSON = {"content-type": "application/json"}


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


@pytest.fixture
def inner() -> Recorder:
    return Recorder()


@pytest.fixture
def local(inner: Recorder, state: StateFolder) -> Gateway:
    """A gateway as on a person's own machine."""
    rules = AccessRules(
        Users({}), frozenset({"127.0.0.1", "localhost"}), 100_000
    )
    return Gateway(inner, state, rules)


@pytest.fixture
def shared(inner: Recorder, state: StateFolder) -> Gateway:
    """A gateway on which people must log in."""
    return Gateway(
        inner,
        state,
        AccessRules(Users({"anna": ANNA}), frozenset(), 10_000_000),
    )


class Namer(Recorder):
    """Names a case as the next one is named."""

    named = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.named = NAME_FOR_VIEWER.get()("a")
        await super().__call__(scope, receive, send)


def credentials(password: str = PASSWORD) -> dict[str, str]:
    text = base64.b64encode(f"anna:{password}".encode()).decode()
    return {"authorization": f"Basic {text}"}


def test_an_open_request_reaches_monai_label_unchanged(
    local: Gateway, inner: Recorder
) -> None:
    answer = ask(local, "POST", "/train/made_up", b'{"steps": 5}', JSON)
    assert (answer.code, answer.json()) == (200, {"reached": "/train/made_up"})
    assert inner.requests == [("POST", "/train/made_up", b'{"steps": 5}')]
    assert inner.requesters == [Requester("local", "192.0.2.7")]


@pytest.mark.parametrize(
    "size",
    [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, IN_MEMORY_BYTES + 7],
)
def test_a_body_is_handed_on_whole_whatever_its_size(
    shared: Gateway, inner: Recorder, size: int
) -> None:
    body = bytes(number % 251 for number in range(size))
    pieces = [body[: size // 2], body[size // 2 :]]
    headers = {"content-type": "multipart/related; boundary=x", **credentials()}
    assert (
        ask(shared, "POST", "/proxy/dicom/studies", pieces, headers).code == 200
    )
    assert inner.requests == [("POST", "/proxy/dicom/studies", body)]


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("PUT", "/model/made_up", 403),
        ("GET", "/ohif/%2e%2e/config.py", 400),
        ("GET", "/datastore/image?image=..%2F..%2Fevil", 400),
        ("PUT", "/session/?uncompress=true", 400),
    ],
)
def test_a_refused_request_reaches_nothing(
    local: Gateway, inner: Recorder, method: str, target: str, status: int
) -> None:
    assert ask(local, method, target).code == status
    assert not inner.requests


def test_a_query_value_may_be_blank_but_not_a_path(local: Gateway) -> None:
    assert (
        ask(
            local, "POST", "/infer/made_up?image=&session_id=1-2", b"", JSON
        ).code
        == 200
    )
    assert (
        ask(
            local, "POST", "/infer/made_up?session_id=&image=a/b", b"", JSON
        ).code
        == 400
    )


def test_json_bodies_are_checked(local: Gateway, inner: Recorder) -> None:
    assert (
        ask(
            local, "POST", "/train/made_up", b'{"bundle_path": "/x"}', JSON
        ).code
        == 400
    )
    assert (
        ask(local, "POST", "/train/made_up", b'{"bundle_path": "/x"}').code
        == 400
    )
    assert (
        ask(
            local,
            "POST",
            "/train/made_up",
            b"nonsense",
            {"content-type": "text/x"},
        ).code
        == 400
    )
    assert not inner.requests


def test_forms_are_checked_field_by_field(
    local: Gateway, inner: Recorder
) -> None:
    def put(fields: dict[str, str], file: str = "a.nii.gz") -> int:
        body, kind = encode_form(fields, {"label": (file, b"voxels")})
        return ask(
            local,
            "PUT",
            "/datastore/label?image=a",
            body,
            {"content-type": kind},
        ).code

    assert put({"params": "{}"}) == 200
    assert put({"params": '{"label_info": []}', "info": "{}"}) == 200
    assert len(inner.requests) == 2
    assert put({"params": '{"image": "/etc/passwd"}'}) == 400
    assert put({"info": '{"path": "/etc/passwd"}'}) == 400
    assert put({"params": "nonsense"}) == 400
    assert put({"image": "../x"}) == 400
    assert put({"params": "{}"}, "../a.nii.gz") == 400
    assert put({"params": "{}"}, "a.py") == 400
    assert len(inner.requests) == 2


def test_a_form_that_cannot_be_read_is_refused(local: Gateway) -> None:
    headers = {"content-type": "multipart/form-data"}
    assert (
        ask(local, "PUT", "/datastore/label?image=a", b"x", headers).code == 400
    )
    many, kind = encode_form(
        {f"field{number}": "1" for number in range(200)}, {}
    )
    assert (
        ask(
            local,
            "PUT",
            "/datastore/label?image=a",
            many,
            {"content-type": kind},
        ).code
        == 400
    )


def test_uploads_are_bounded_whether_or_not_they_say_their_length(
    local: Gateway, inner: Recorder, state: StateFolder
) -> None:
    headers = {"content-type": "multipart/related"}
    target = "/proxy/dicom/studies"
    exact = [b"x" * 50_000] * 2
    assert ask(local, "POST", target, exact, headers).code == 200
    over = ask(local, "POST", target, [*exact, b"x"], headers)
    assert over.code == 413
    assert "0.1 MB" in over.json()["detail"]
    assert (
        ask(
            local, "POST", target, b"", {**headers, "content-length": "100000"}
        ).code
        == 200
    )
    assert (
        ask(
            local, "POST", target, b"", {**headers, "content-length": "100001"}
        ).code
        == 413
    )
    assert (
        ask(
            local, "POST", target, b"", {**headers, "content-length": "-1"}
        ).code
        == 413
    )
    assert len(inner.requests) == 2
    assert not list(state.uploads.iterdir()), "nothing of a request stays"


def test_the_rest_of_a_refused_request_is_read_away(local: Gateway) -> None:
    chunks = [b"x" * 60_000] * 5
    received: list[int] = []

    async def receive() -> dict[str, Any]:
        received.append(1)
        left = len(received) < len(chunks)
        return {"type": "http.request", "body": chunks[0], "more_body": left}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 413
            assert len(received) == len(chunks), (
                "the client must be able to read the answer"
            )

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/proxy/dicom/studies",
        "query_string": b"",
        "headers": [
            (b"host", b"localhost"),
            (b"content-type", b"multipart/related"),
        ],
    }
    asyncio.run(local(scope, receive, send))
    assert len(received) == len(chunks)


def test_a_client_that_goes_away_leaves_nothing(
    local: Gateway, inner: Recorder
) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/train/",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    asyncio.run(local(scope, receive, send))
    assert sent[0]["status"] == 400
    assert not inner.requests


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1"])
def test_the_server_answers_to_its_own_names(local: Gateway, host: str) -> None:
    assert ask(local, "GET", "/info/", headers={"host": host}).code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""]
)
def test_a_page_of_the_internet_cannot_call_it_by_another_name(
    local: Gateway, inner: Recorder, host: str
) -> None:
    assert ask(local, "GET", "/info/", headers={"host": host}).code == 403
    assert not inner.requests


@pytest.mark.parametrize("host", ["[", "127.0.0.1:x", "127.0.0.1:99999"])
def test_a_host_that_is_no_address_is_refused(
    local: Gateway, inner: Recorder, host: str
) -> None:
    assert ask(local, "GET", "/info/", headers={"host": host}).code == 400
    assert not inner.requests


def test_logins_and_connection_headers_stay_at_the_gateway(
    shared: Gateway, state: StateFolder
) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"]))
        await Recorder()(scope, receive, send)

    gateway = Gateway(app, state, shared._rules)
    headers = {
        **credentials(),
        "cookie": "a=b",
        "transfer-encoding": "chunked",
        "connection": "keep-alive",
        "accept": "*/*",
    }
    assert ask(gateway, "POST", "/train/made_up", b"{}", headers).code == 200
    assert seen == [
        {b"host": b"127.0.0.1:8000", b"accept": b"*/*", b"content-length": b"2"}
    ]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8000", 200),
        ("https://127.0.0.1:8000", 200),
        ("http://localhost:8000", 200),
        ("http://127.0.0.1:9000", 403),
        ("http://localhost:9000", 403),
        ("http://127.0.0.1", 403),
        ("http://[", 400),
        ("http://127.0.0.1:x", 400),
        ("https://evil.example", 403),
        ("null", 403),
    ],
)
def test_only_the_servers_own_pages_may_call_it(
    local: Gateway, origin: str, status: int
) -> None:
    assert (
        ask(local, "GET", "/info/", headers={"origin": origin}).code == status
    )


def test_viewers_learn_whether_a_login_is_required(
    local: Gateway, shared: Gateway
) -> None:
    for app, required in ((local, False), (shared, True)):
        for path in ("/auth", "/auth/"):
            assert ask(app, "GET", path).json()["enabled"] is required


def test_nothing_is_told_before_the_login(
    shared: Gateway, inner: Recorder
) -> None:
    for headers in (
        {},
        credentials("wrong horse"),
        {"authorization": "Bearer x"},
    ):
        for method, path in (
            ("GET", "/info/"),
            ("GET", "/auth/token/valid"),
            ("PUT", "/model/made_up"),
        ):
            assert ask(shared, method, path, headers=headers).code == 401
    assert not inner.requests


def test_who_logged_in_is_known_by_password_or_token(
    shared: Gateway, inner: Recorder
) -> None:
    assert ask(shared, "GET", "/info/", headers=credentials()).code == 200
    body = f"username=anna&password={PASSWORD.replace(' ', '+')}".encode()
    token = ask(shared, "POST", "/auth/token", body).json()["access_token"]
    known = {"authorization": f"Bearer {token}"}
    assert ask(shared, "GET", "/auth/token/valid/", headers=known).json() == {
        "username": "anna",
        "role": "admin",
    }
    assert ask(shared, "GET", "/info/", headers=known, client=None).code == 200
    assert inner.requesters == [
        Requester("anna", "192.0.2.7"),
        Requester("anna", ""),
    ]


def test_a_token_ends_by_logging_out(shared: Gateway) -> None:
    body = f"username=anna&password={PASSWORD.replace(' ', '+')}".encode()
    token = ask(shared, "POST", "/auth/token", body).json()["access_token"]
    known = {"authorization": f"Bearer {token}"}
    assert ask(shared, "POST", "/auth/logout", headers=known).code == 200
    assert ask(shared, "GET", "/info/", headers=known).code == 401


ROLES = [
    ("GET", "/info/", Role.ANNOTATOR),
    ("POST", "/infer/made_up", Role.ANNOTATOR),
    ("PUT", "/datastore/label", Role.ANNOTATOR),
    ("POST", "/scoring/quality", Role.REVIEWER),
    ("GET", "/datastore/dataset", Role.REVIEWER),
    ("POST", "/train/made_up", Role.ADMIN),
    ("DELETE", "/train/", Role.ADMIN),
    ("POST", "/medseg/promote/2", Role.ADMIN),
    ("PUT", "/datastore/", Role.ADMIN),
    ("PUT", "/datastore/image", Role.ADMIN),
    ("GET", "/model/made_up", Role.ADMIN),
]


@pytest.mark.parametrize("role", list(Role))
def test_each_role_may_do_what_is_its_own(
    inner: Recorder, state: StateFolder, role: Role
) -> None:
    user = User("anna", ANNA.secret, role)
    rules = AccessRules(Users({"anna": user}), frozenset(), 10_000)
    gateway = Gateway(inner, state, rules)
    for method, path, needed in ROLES:
        answer = ask(gateway, method, path, headers=credentials())
        assert answer.code == (200 if role >= needed else 403), path
    assert len(inner.requests) == sum(role >= needed for *_, needed in ROLES)


def test_a_refused_login_is_audited_without_the_password(
    shared: Gateway, state: StateFolder
) -> None:
    for body in (
        b"username=anna&password=wrong+horse",
        b"username=anna&password=",
        b"",
        b"\xff",
    ):
        assert ask(shared, "POST", "/auth/token", body).code == 401
    lines = list(AuditLog(state.audit_log).read_lines())
    assert [(line["action"], line["name"]) for line in lines] == [
        ("login refused", "anna"),
        ("login refused", "anna"),
        ("login refused", ""),
        ("login refused", ""),
    ]
    assert {(line["who"], line["address"]) for line in lines} == {
        ("", "192.0.2.7")
    }
    assert "horse" not in state.audit_log.read_text()


def test_a_login_is_bounded(shared: Gateway) -> None:
    assert ask(shared, "POST", "/auth/token", b"x" * 10_001).code == 413


def test_dicom_stored_through_the_proxy_is_audited(
    shared: Gateway, state: StateFolder
) -> None:
    headers = {"content-type": "multipart/related", **credentials()}
    ask(shared, "POST", "/proxy/dicom/stow/studies", b"x" * 17, headers)
    ask(shared, "GET", "/proxy/dicom/qido/studies", headers=credentials())
    (line,) = AuditLog(state.audit_log).read_lines()
    assert (line["who"], line["bytes"]) == ("anna", 17)


def test_one_requesters_name_does_not_stay_for_the_next(
    shared: Gateway,
) -> None:
    from medseg.label_server.audit import REQUESTER

    ask(shared, "GET", "/info/", headers=credentials())
    assert REQUESTER.get() == LOCAL


def test_start_and_end_of_the_server_pass(local: Gateway) -> None:
    seen: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    local._inner = inner
    for kind in ("lifespan", "websocket"):
        asyncio.run(local({"type": kind}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"], "there are no WebSockets"


def test_answers_are_json(local: Gateway) -> None:
    answer = ask(local, "GET", "/logs/")
    assert (
        json.loads(answer.body)["detail"]
        == "GET /logs/ is not available from medseg label"
    )


def log_in(gateway: Gateway) -> dict[str, str]:
    body = f"username=anna&password={PASSWORD.replace(' ', '+')}".encode()
    token = ask(gateway, "POST", "/auth/token", body).json()["access_token"]
    return {"authorization": f"Bearer {token}"}


def test_a_link_opens_one_image_without_a_login_until_the_logout(
    state: StateFolder,
) -> None:
    inner = Namer()
    rules = AccessRules(Users({"anna": ANNA}), frozenset(), 10_000)
    gateway = Gateway(inner, state, rules)
    known = log_in(gateway)
    ask(gateway, "POST", "/activelearning/first", b"{}", {**JSON, **known})
    linked = inner.named
    assert linked.startswith("a&token=")
    link = f"/datastore/image?image={quote_plus(linked)}"
    assert ask(gateway, "GET", link).code == 200
    assert inner.queries[-1] == b"image=a"
    assert inner.requesters[-1] == Requester("anna", "192.0.2.7")
    for method, target in (
        ("HEAD", link),
        ("PUT", link),
        ("GET", link.replace("=a%26", "=b%26")),
        ("GET", link + "&image=b"),
        ("GET", link.replace("/image?", "/label?tag=final&")),
        ("GET", "/datastore/image?image=a"),
        ("GET", link[:-1]),
    ):
        assert ask(gateway, method, target).code in (400, 401), target
    # What is named with its token is known elsewhere, too, to whoever is logged in.
    target = f"/datastore/label?tag=final&image={quote_plus(linked)}"
    answer = ask(gateway, "PUT", target, b"{}", {**JSON, **known})
    assert (answer.code, inner.queries[-1]) == (200, b"tag=final&image=a")
    ask(gateway, "POST", "/auth/logout", headers=known)
    assert ask(gateway, "GET", link).code == 401
    log = state.audit_log.read_text()
    assert "token" not in log
    assert linked.partition("=")[2] not in log


def test_people_who_log_in_by_the_browser_get_no_links(
    state: StateFolder,
) -> None:
    inner = Namer()
    rules = AccessRules(Users({"anna": ANNA}), frozenset(), 10_000)
    gateway = Gateway(inner, state, rules)
    headers = {**JSON, **credentials()}
    ask(gateway, "POST", "/activelearning/first", b"{}", headers)
    assert inner.named == "a"


def test_a_question_is_answered_though_its_headers_announce_a_body(
    shared: Gateway,
) -> None:
    # As 3D Slicer's client asks after an upload; no body follows.
    headers = {"content-type": "multipart/form-data", "content-length": "1234"}
    answer = ask(shared, "GET", "/info/", [], {**headers, **credentials()})
    assert answer.code == 200
    assert ask(shared, "GET", "/info/", [], headers).code == 401
