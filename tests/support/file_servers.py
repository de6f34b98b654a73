"""A real HTTP server on this machine that serves one file, and can be as bad as servers are."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class FileServer:
    """What is served, and how; tests change it between requests.

    Attributes:
        content: The file.
        tag: Its ETag; "" for none.
        knows_ranges: Whether parts are sent.
        answers: For each of the next requests: a status to answer with, a number of bytes after
            which the connection breaks as a negative number, or 0 for a good answer.
        headers: Further headers of answers.
        states_length: Whether Content-Length is sent.
        extra_length: How much too large it is.
        pause: Seconds of silence in the middle of the file.
        requests: The path and the Range of each request.
    """

    content: bytes
    tag: str = '"one"'
    knows_ranges: bool = True
    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    states_length: bool = True
    extra_length: int = 0
    pause: float = 0.0
    requests: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range", "")
        self.requests.append((handler.path, asked))
        answer = self.answers.pop(0) if self.answers else 0
        if answer >= 300:
            handler.send_response(answer)
            if answer in (301, 302, 307):
                handler.send_header("Location", self.url + "elsewhere/file")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        self._send_file(handler, asked, broken_after=-answer)

    def _send_file(
        self, handler: BaseHTTPRequestHandler, asked: str, broken_after: int
    ) -> None:
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
        is_same = handler.headers.get("If-Range", self.tag) == self.tag
        if start and self.knows_ranges and is_same:
            if start >= len(self.content):
                handler.send_response(416)
                total = f"bytes */{len(self.content)}"
                handler.send_header("Content-Range", total)
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            last = len(self.content) - 1
            handler.send_header(
                "Content-Range", f"bytes {start}-{last}/{len(self.content)}"
            )
        else:
            start = 0
            handler.send_response(200)
        body = self.content[start:]
        if self.tag:
            handler.send_header("ETag", self.tag)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        if self.states_length:
            length = len(body) + self.extra_length
            handler.send_header("Content-Length", str(length))
        else:
            handler.send_header("Connection", "close")
        handler.end_headers()
        if broken_after:
            handler.wfile.write(body[:broken_after])
            handler.close_connection = True
            return
        middle = len(body) // 2
        handler.wfile.write(body[:middle])
        handler.wfile.flush()
        time.sleep(self.pause)
        with contextlib.suppress(OSError):  # who waited too long has gone
            handler.wfile.write(body[middle:])
        handler.close_connection = True


@contextlib.contextmanager
def serve_file(content: bytes) -> Iterator[FileServer]:
    """Serve a file under every path of ``server.url``."""
    state = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def pack_folder(folder: Path, top: str = "") -> bytes:
    """Return a folder as the bytes of a tar, under a folder ``top``."""
    import io
    import tarfile

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tape:
        tape.add(folder, arcname=top or folder.name)
    return stream.getvalue()
