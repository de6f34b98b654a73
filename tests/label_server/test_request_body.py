"""How a request's body is received."""

from __future__ import annotations

import asyncio
import io
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.datastructures import Headers

from medseg.label_server import request_body
from medseg.label_server.request_body import check_body, spool_body
from medseg.label_server.request_checks import RefusedError


def receive_chunks(*chunks: bytes, pause: float = 0.0) -> Any:
    waiting = list(chunks)

    async def receive() -> Any:
        await asyncio.sleep(pause)
        chunk = waiting.pop(0)
        return {
            "type": "http.request",
            "body": chunk,
            "more_body": bool(waiting),
        }

    return receive


def test_a_body_in_chunks_is_received_whole() -> None:
    body = io.BytesIO()
    asyncio.run(spool_body(receive_chunks(b"ab", b"", b"c"), body, 3))
    assert body.getvalue() == b"abc"


def test_a_client_that_falls_silent_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_body, "SILENT_SECONDS", 0.05)
    slow = receive_chunks(b"a", b"b", pause=5.0)
    with pytest.raises(RefusedError) as refused:
        asyncio.run(spool_body(slow, io.BytesIO(), 100))
    assert refused.value.status == 408


def test_a_client_that_drips_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_body, "SILENT_SECONDS", 0.05)
    drips = receive_chunks(*[b"a"] * 1000, pause=0.02)
    with pytest.raises(RefusedError) as refused:
        asyncio.run(spool_body(drips, io.BytesIO(), 10_000))
    assert refused.value.status == 408


@pytest.mark.parametrize(
    "form",
    [
        urlencode({"params": '{"session": "/etc"}'}).encode(),
        urlencode({"info": '{"tag": "../x"}'}).encode(),
        b"person=a&%70arams=null",
        b"person=a;params={}",
        b"person=%ff",
    ],
)
def test_a_form_is_checked_whatever_way_it_is_encoded(form: bytes) -> None:
    headers = Headers({"content-type": "application/x-www-form-urlencoded"})
    with pytest.raises(RefusedError) as refused:
        asyncio.run(check_body(headers, io.BytesIO(form)))
    assert refused.value.status == 400
    sound = urlencode({"person": "a; b", "params": "{}"}).encode()
    asyncio.run(check_body(headers, io.BytesIO(sound)))
