"""What of a viewer's request reaches the DICOMweb server, byte for byte, and what comes back."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from support.asgi import ask

from medseg.errors import OutputError
from medseg.label_server.audit import REQUESTER, Requester
from medseg.label_server.dicomweb_proxy import DicomWebProxy
from medseg.label_server.environment import DICOMWEB_PASSWORD, DICOMWEB_USER
from medseg.label_server.gateway import AccessRules, Gateway
from medseg.label_server.state import StateFolder
from medseg.label_server.users import Users

STORED = 'multipart/related; type="application/dicom"; boundary=b'
SMUGGLED = (
    b"0\r\n\r\nDELETE /patients/1 HTTP/1.1\r\nHost: pacs\r\n"
    b"Content-Length: 0\r\n\r\n"
)


@dataclass
class Pacs:
    """A DICOMweb server that keeps what reaches it.

    Attributes:
        status: What it answers.
        headers: What it answers beside the body.
        body: Of its answers.
        requests: Line, headers and body of each request.
        url: Its root.
    """

    status: int = 200
    headers: dict[str, str] = field(
        default_factory=lambda: {"content-type": "application/dicom+json"}
    )
    body: bytes = b"[]"
    requests: list[tuple[str, dict[str, str], bytes]] = field(
        default_factory=list
    )
    url: str = ""


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    pacs = Pacs()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length)
            headers = {
                key.lower(): value for key, value in self.headers.items()
            }
            pacs.requests.append((self.requestline, headers, body))
            self.send_response(pacs.status)
            for key, value in pacs.headers.items():
                self.send_header(key, value)
            self.send_header("content-length", str(len(pacs.body)))
            self.end_headers()
            self.wfile.write(pacs.body)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            pass

    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    pacs.url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    with contextlib.closing(server.socket):
        yield pacs
        server.shutdown()
        thread.join()


def proxy_to(url: str | None, note_author: Any = None) -> Any:
    """Return a proxy that ends its connections with each request, as each has its own loop."""
    proxy = DicomWebProxy(url, note_author)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await proxy(scope, receive, send)
        await proxy.close()

    return app


@pytest.fixture
def served(pacs: Pacs, tmp_path: Path) -> Gateway:
    """The proxy behind the gateway, as viewers find it."""
    app = Starlette(routes=[Mount("/proxy", app=proxy_to(pacs.url))])
    rules = AccessRules(Users({}), frozenset({"127.0.0.1"}), 100_000)
    return Gateway(app, StateFolder(tmp_path / "state"), rules)


def test_a_search_arrives_with_its_query_and_nothing_else(
    served: Gateway, pacs: Pacs
) -> None:
    target = "/proxy/dicom/qido/studies?PatientID=A%20B%26c&limit=2&00100010=*"
    sent = {
        "accept": "application/dicom+json",
        "authorization": "Basic c2VjcmV0",
        "cookie": "session=secret",
        "x-forwarded-for": "10.0.0.1",
    }
    assert ask(served, "GET", target, headers=sent).code == 200
    [(line, headers, body)] = pacs.requests
    query = "PatientID=A+B%26c&limit=2&00100010=%2A"
    assert line == f"GET /dicom-web/studies?{query} HTTP/1.1"
    assert headers["accept"] == "application/dicom+json"
    assert set(headers) == {
        "host",
        "accept",
        "accept-encoding",
        "connection",
        "user-agent",
    }
    assert body == b""


@pytest.mark.parametrize(
    "headers",
    [
        {"transfer-encoding": "chunked"},
        {"transfer-encoding": "chunked", "content-length": "5"},
        {"transfer-encoding": "gzip, chunked", "te": "trailers"},
        {"connection": "content-length", "expect": "100-continue"},
        {"content-length": str(len(SMUGGLED) + 0)},
    ],
)
def test_a_stored_body_never_becomes_a_second_request(
    served: Gateway, pacs: Pacs, headers: dict[str, str]
) -> None:
    known = {"content-type": STORED, **headers}
    ask(served, "POST", "/proxy/dicom/studies", SMUGGLED, known)
    ask(served, "GET", "/proxy/dicom/studies")
    lines = [line for line, _, _ in pacs.requests]
    assert not any("DELETE" in line for line in lines)
    assert lines[-1] == "GET /dicom-web/studies HTTP/1.1"
    for _, received, body in pacs.requests[:-1]:
        assert body == SMUGGLED
        assert received["content-length"] == str(len(SMUGGLED))
        assert "transfer-encoding" not in received


def test_a_segmentation_is_stored_whole(served: Gateway, pacs: Pacs) -> None:
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + bytes(50_000)
    chunks = [body[:70], body[70:30_000], body[30_000:]]
    target = "/proxy/dicom/stow/studies/1.2.3"
    answer = ask(served, "POST", target, chunks, {"content-type": STORED})
    assert answer.code == 200
    [(line, headers, received)] = pacs.requests
    assert line == "POST /dicom-web/studies/1.2.3 HTTP/1.1"
    assert received == body
    assert headers["content-type"] == (
        'multipart/related; type="application/dicom"; boundary="b"'
    )


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/dicom",
        "multipart/related; boundary=b",
        'multipart/related; type="application/dicom"',
        'multipart/related; type="application/dicom"; boundary="a b\r\nX: y"',
        f'multipart/related; type="application/dicom"; boundary={"b" * 71}',
    ],
)
def test_only_dicom_is_stored(pacs: Pacs, content_type: str) -> None:
    headers = {"content-type": content_type, "content-length": "1"}
    proxy = proxy_to(pacs.url)
    answer = ask(proxy, "POST", "/dicom/studies", b"x", headers)
    assert (answer.code, pacs.requests) == (415, [])


READABLE = (
    "studies",
    "series",
    "instances",
    "studies/1.2/series",
    "studies/1.2/metadata",
    "studies/1.2/series/3.4/instances/5.6",
    "studies/1.2/series/3.4/metadata",
    "studies/1.2/series/3.4/instances/5.6/frames/1,2,30",
    "studies/1.2/series/3.4/instances/5.6/frames/1/rendered",
    "studies/1.2/series/3.4/instances/5.6/bulk/7fe00010",
    "studies/1.2/series/3.4/thumbnail",
)


@pytest.mark.parametrize("path", READABLE)
def test_dicomwebs_resources_can_be_read(pacs: Pacs, path: str) -> None:
    assert ask(proxy_to(pacs.url), "GET", f"/dicom/wado/{path}").code == 200
    assert pacs.requests[0][0] == f"GET /dicom-web/{path} HTTP/1.1"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "patients"),
        ("GET", "studies/../patients"),
        ("GET", "studies/..%2f..%2fpatients/1"),
        ("GET", "studies//patients"),
        ("GET", "studies/1.2/delete"),
        ("GET", "studies/1.2/series/3.4/instances/5.6/frames/a"),
        ("GET", f"studies/{'1' * 65}"),
        ("GET", "studies/1.2%0d%0aX: y"),
        ("GET", "studies/1.2%00"),
        ("POST", "tools/execute-script"),
        ("POST", "studies/1.2/series"),
        ("DELETE", "studies/1.2"),
        ("PUT", "studies/1.2"),
        ("HEAD", "studies"),
    ],
)
def test_nothing_else_of_the_server_can_be_reached(
    pacs: Pacs, method: str, path: str
) -> None:
    headers = {"content-type": STORED, "content-length": "0"}
    proxy = proxy_to(pacs.url)
    answer = ask(proxy, method, f"/dicom/{path}", headers=headers)
    assert (answer.code, pacs.requests) == (403, [])


@pytest.mark.parametrize(
    "query",
    [
        "PatientID%0d%0aX=1",
        "a/b=1",
        "PatientID=a%0d%0ab",
        f"PatientID={'x' * 1025}",
        "&".join(f"a{number}=1" for number in range(101)),
    ],
)
def test_a_query_that_is_none_of_dicomwebs_is_refused(
    pacs: Pacs, query: str
) -> None:
    answer = ask(proxy_to(pacs.url), "GET", f"/dicom/studies?{query}")
    assert (answer.code, pacs.requests) == (400, [])


def test_the_servers_own_login_is_sent(
    pacs: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DICOMWEB_USER, "anna")
    monkeypatch.setenv(DICOMWEB_PASSWORD, "horse")
    ask(proxy_to(pacs.url), "GET", "/dicom/studies")
    assert pacs.requests[0][1]["authorization"] == "Basic YW5uYTpob3JzZQ=="


@pytest.mark.parametrize(
    ("status", "told"), [(401, 502), (403, 502), (302, 502)]
)
def test_what_only_concerns_this_server_is_not_handed_back(
    pacs: Pacs, status: int, told: int
) -> None:
    pacs.status = status
    pacs.headers = {"location": "http://10.0.0.9/", "set-cookie": "pacs=secret"}
    pacs.body = b"secret"
    answer = ask(proxy_to(pacs.url), "GET", "/dicom/studies")
    assert answer.code == told
    assert b"secret" not in answer.body


def test_an_answer_comes_back_without_cookies_and_as_no_page(
    pacs: Pacs,
) -> None:
    pacs.headers = {"content-type": "text/html", "set-cookie": "pacs=secret"}
    pacs.body = b"<script>alert(1)</script>"
    heads: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def watch(message: Any) -> None:
            heads.append(message)
            await send(message)

        await proxy_to(pacs.url)(scope, receive, watch)

    assert ask(app, "GET", "/dicom/studies").body == pacs.body
    headers = dict(heads[0]["headers"])
    assert b"set-cookie" not in headers
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"content-security-policy"].startswith(b"sandbox")


def test_a_server_that_is_away_is_told_without_its_address() -> None:
    answer = ask(proxy_to("http://127.0.0.1:9"), "GET", "/dicom/studies")
    assert answer.code == 502
    assert "127.0.0.1" not in json.dumps(answer.json())


def test_where_cases_are_files_there_is_nothing_to_reach() -> None:
    assert ask(proxy_to(None), "GET", "/dicom/studies").code == 404


IN_JSON = b"""{"00081198": {"vr": "SQ", "Value": [
 {"00081155": {"vr": "UI", "Value": ["2.25.10"]}}]},
"00081199": {"vr": "SQ", "Value": [
 {"00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.66.4"]},
  "00081155": {"vr": "UI", "Value": ["2.25.11"]}},
 {"00081155" : {"Value" : ["2.25.12"], "vr" : "UI"}}]}}"""
IN_XML = b"""<NativeDicomModel><DicomAttribute tag="00081199" vr="SQ"><Item number="1">
<DicomAttribute tag="00081155" vr="UI" keyword="ReferencedSOPInstanceUID">
<Value number="1">2.25.11</Value></DicomAttribute></Item><Item number="2">
<DicomAttribute tag="00081155" vr="UI"><Value number="1">2.25.12</Value></DicomAttribute>
</Item></DicomAttribute><DicomAttribute tag="00081198" vr="SQ"><Item number="1">
<DicomAttribute tag="00081155" vr="UI"><Value number="1">2.25.13</Value></DicomAttribute>
</Item></DicomAttribute></NativeDicomModel>"""


@pytest.mark.parametrize("answered", [IN_JSON, IN_XML], ids=["json", "xml"])
def test_who_stored_an_instance_is_noted(pacs: Pacs, answered: bytes) -> None:
    noted: list[Any] = []
    proxy = proxy_to(pacs.url, lambda *facts: noted.append(facts))
    headers = {"content-type": STORED, "content-length": "1"}
    pacs.body = answered

    def store(person: str) -> None:
        token = REQUESTER.set(Requester(person))
        answer = ask(proxy, "POST", "/dicom/studies", b"x", headers)
        REQUESTER.reset(token)
        assert (answer.code, answer.body) == (pacs.status, answered)

    store("anna")
    assert noted == [(["2.25.11", "2.25.12"], "anna")]
    # Nobody logged in; nothing was stored.
    store("local")
    pacs.status = 409
    store("ben")
    assert len(noted) == 1


def test_what_was_stored_is_answered_though_its_author_cannot_be_noted(
    pacs: Pacs,
) -> None:
    def fail(*_: Any) -> None:
        raise OutputError("the disk is full")

    pacs.body = IN_JSON
    headers = {"content-type": STORED, "content-length": "1"}
    token = REQUESTER.set(Requester("anna"))
    proxy = proxy_to(pacs.url, fail)
    answer = ask(proxy, "POST", "/dicom/studies", b"x", headers)
    REQUESTER.reset(token)
    assert answer.code == 200
