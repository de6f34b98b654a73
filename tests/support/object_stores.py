"""A server of S3's kind on this machine, that fails as networks and stores do."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from medseg._support import object_store, store_errors

BUCKET = "scans"
SECRET = "a-secret-that-stands-in-no-log"
_MOST_SILENT_SECONDS = 60


@dataclass
class Faults:
    """Which requests fail, by chance.

    Attributes:
        share: Of requests that fail.
        count: How many did.
        broken: The part of a path whose requests fail, each time.
        unreadable: The part of a path that cannot be read until something new is written there.
        silent: The part of a path whose requests have no answer until ``is_over`` is set.
        is_over: Whether the silence is over.
    """

    share: float = 0.0
    count: int = 0
    broken: str = ""
    unreadable: str = ""
    silent: str = ""
    is_over: threading.Event = field(default_factory=threading.Event)
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def choose(self, path: str, method: str) -> str:
        """Return what befalls the next request, of a path; empty for nothing."""
        if self.broken and self.broken in path:
            return "error"
        if self.silent and self.silent in path:
            self.is_over.wait(_MOST_SILENT_SECONDS)
            return "error"
        if self.unreadable and self.unreadable in path:
            if method == "GET":
                return "error"
            self.unreadable *= method != "PUT"
        if self.chance.random() >= self.share:
            return ""
        self.count += 1
        kinds = ("busy", "error", "reset before", "reset after")
        return self.chance.choice(kinds)


@dataclass
class Store:
    """A store, as who tests it sees it."""

    faults: Faults
    client: Any

    def put(self, name: str, content: bytes) -> None:
        """Put an object; no fault befalls it."""
        share, self.faults.share = self.faults.share, 0.0
        self.client.put_object(Bucket=BUCKET, Key=name, Body=content)
        self.faults.share = share

    def read(self) -> dict[str, bytes]:
        """Return every object, by name."""
        share, self.faults.share = self.faults.share, 0.0
        found = {}
        pages = self.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=BUCKET):
            for each in page.get("Contents", ()):
                answer = self.client.get_object(Bucket=BUCKET, Key=each["Key"])
                found[each["Key"]] = answer["Body"].read()
        self.faults.share = share
        return found


@contextlib.contextmanager
def open_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Serve a store with an empty bucket, which ``s3://scans`` leads to."""
    server_module = pytest.importorskip("moto.moto_server.werkzeug_app")
    pytest.importorskip("s3fs")
    import boto3
    import requests
    from werkzeug.serving import make_server

    faults = Faults()
    app = server_module.DomainDispatcherApplication(
        server_module.create_backend_app
    )
    server = make_server(
        "127.0.0.1", 0, _make_faulty(app, faults), threaded=True
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    # Or else the client waits for seconds before it tries again.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(store_errors, "WAITS", 8 * (0.01,))
    object_store._make_system.cache_clear()
    # What the server holds is the process's, not its own.
    requests.post(f"{address}/moto-api/reset", timeout=60)
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    try:
        yield Store(faults, client)
    finally:
        object_store._make_system.cache_clear()
        faults.is_over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _make_faulty(app: Callable[..., Any], faults: Faults) -> Callable[..., Any]:
    def answer(
        environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        fault = faults.choose(environ["PATH_INFO"], environ["REQUEST_METHOD"])
        if fault == "busy":
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        if fault == "error":
            start_response("500 Internal Error", [("Content-Length", "0")])
            return [b""]
        if fault == "reset before":
            _reset(environ["werkzeug.socket"])
        body: Iterable[bytes] = app(environ, start_response)
        if fault == "reset after":
            # What was asked for is done, and who asked does not hear of it.
            _reset(environ["werkzeug.socket"])
        return body

    return answer


def _reset(connection: socket.socket) -> None:
    # Or else the server would wait for the next request, and the client for its answer.
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError
