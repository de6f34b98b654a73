"""A running ``medseg label`` for tests: started as users start it, driven as Slicer drives it."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from support.namespaces import Namespace

START_SECONDS = 400


def require_monai_label() -> None:
    """Skip where MONAI Label is not installed."""
    from medseg.errors import MissingExtraError
    from medseg.label_server.environment import check_installed

    try:
        check_installed()
    except MissingExtraError:
        pytest.skip("MONAI Label is not installed; `make label` installs it")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def slicer_client(url: str, folder: Path) -> Any:
    """Return the client that 3D Slicer's plugin uses, from MONAI Label's wheel."""
    return slicer_library().MONAILabelClient(
        url, str(folder), client_id="tester@slicer"
    )


def slicer_library() -> ModuleType:
    root = (
        Path(sys.prefix)
        / "monailabel/plugins/slicer/MONAILabel/MONAILabelLib/client.py"
    )
    spec = importlib.util.spec_from_file_location("slicer_client", root)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Answer:
    """What a server answered."""

    code: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    start_seconds: float = 0.0
    """Of its processors' time, until it first answered."""

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request, exactly as given."""
        request = urllib.request.Request(
            self.url + path, body, dict(headers or {}), method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=240) as answer:
                body = answer.read()
                packed = answer.headers.get("content-encoding") == "gzip"
                return Answer(
                    answer.status, gzip.decompress(body) if packed else body
                )
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read())

    def measure_work(self) -> float:
        """Return the processors' time that it has taken, which a busy machine hardly changes."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def kill(self) -> None:
        """Kill it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Stop it as Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=240)

    def wait_for_training(self, seconds: float = 280) -> dict[str, Any]:
        """Return the training run's last status, once it has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.ask("GET", "/train/").json()
            if status["status"] not in ("SUBMITTED", "RUNNING"):
                return dict(status)
            time.sleep(0.5)
        raise AssertionError(f"the training run did not end: {status}")


@contextlib.contextmanager
def run_server(
    bundle: Path,
    studies: Path | str,
    state: Path,
    *options: str,
    headers: Mapping[str, str] | None = None,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    namespace: Namespace | None = None,
) -> Iterator[Server]:
    """Start ``medseg label`` and wait until it answers; stop it at the end."""
    port = port or free_port()
    address = "127.0.0.1" if namespace is None else namespace.address
    before = [] if namespace is None else namespace.command
    log = state.parent / f"{state.name}.log"
    call = [
        "-m",
        "medseg",
        "label",
        bundle,
        studies,
        "--state",
        state,
        "--port",
        port,
    ]
    with log.open("ab") as out:
        process = subprocess.Popen(
            [
                *before,
                sys.executable,
                *map(str, call),
                "--device",
                "cpu",
                *options,
            ],
            stdout=out,
            stderr=out,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            cwd=state.parent,
        )
    server = Server(process, f"http://{address}:{port}", log)
    try:
        _wait(server, headers)
        server.start_seconds = server.measure_work()
        yield server
    finally:
        server.stop()


def _wait(server: Server, headers: Mapping[str, str] | None) -> None:
    end = time.monotonic() + START_SECONDS
    while server.process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            if server.ask("GET", "/info/", headers=headers).code == 200:
                return
        time.sleep(0.2)
    raise AssertionError(
        f"the server did not start:\n{server.log.read_text()[-3000:]}"
    )


def encode_form(
    fields: Mapping[str, str], files: Mapping[str, tuple[str, bytes]]
) -> tuple[bytes, str]:
    """Return a multipart body and its content type."""
    mark = "----boundary-of-the-test"
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for name, (file, content) in files.items():
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"'
        parts += [f"{head}\r\n\r\n".encode(), content, b"\r\n"]
    return b"".join(
        [*parts, f"--{mark}--\r\n".encode()]
    ), f"multipart/form-data; boundary={mark}"
