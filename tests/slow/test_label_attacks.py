"""What clients that mean harm, or are merely rude, cannot do to a running ``medseg label``."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import psutil
import pytest
from support.bundles import made_spec, trained_bundle
from support.hostile_requests import list_attacks
from support.label_servers import (
    Server,
    encode_form,
    require_monai_label,
    run_server,
    slicer_client,
)

from medseg.bundle.hashes import hash_file
from medseg.testing import write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]

CASE = "phantom_000"
CASES = 2
PROMPT_SECONDS = 0.2
"""How long ``/info/`` may take on an idle machine."""
BUSY = 10.0
"""How many times as long it may take where tests share two processors."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_monai_label()
    home = tmp_path_factory.mktemp("attacks")
    trained_bundle(
        home / "bundle", made_spec(preprocessing={"spacing_mm": [4, 4, 4]})
    )
    write_dataset(home / "data", CASES)
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Any:
    studies = home / "data" / "imagesTr"
    with run_server(home / "bundle", studies, home / "state") as server:
        yield server


@pytest.fixture(scope="module")
def image(home: Path) -> bytes:
    return (home / "data" / "imagesTr" / f"{CASE}.nii.gz").read_bytes()


@pytest.fixture(scope="module")
def label(home: Path) -> bytes:
    return (home / "data" / "labelsTr" / f"{CASE}.nii.gz").read_bytes()


@contextlib.contextmanager
def prompt(server: Server) -> Any:
    """See that ``/info/`` answers all the while."""
    slowest, stopped = 0.0, threading.Event()

    def watch() -> None:
        nonlocal slowest
        while not stopped.is_set():
            began = time.monotonic()
            assert server.ask("GET", "/info/").code == 200
            slowest = max(slowest, time.monotonic() - began)
            stopped.wait(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        stopped.set()
        watcher.join()
    assert slowest < PROMPT_SECONDS * BUSY


def put(
    server: Server,
    path: str,
    field: str,
    content: bytes,
    name: str = "a.nii.gz",
) -> int:
    body, kind = encode_form({"params": "{}"}, {field: (name, content)})
    return server.ask("PUT", path, body, {"content-type": kind}).code


def uploads(home: Path) -> list[Path]:
    return list((home / "state" / "uploads").iterdir())


def wait_until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.1)


def bomb(shape: tuple[int, int, int]) -> bytes:
    """Return a gzipped NIfTI file of zeros, without having them in memory."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header.set_sform(np.eye(4), code="scanner")
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as file:
        file.write(header.binaryblock + bytes(4))
        block = bytes(1 << 20)
        for _ in range(int(np.prod(shape)) // len(block)):
            file.write(block)
    return packed.getvalue()


def test_what_inflates_to_gigabytes_is_refused_at_once(
    server: Server, home: Path
) -> None:
    content = bomb((1024, 1024, 900))
    assert len(content) < 2e6
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with prompt(server):
        began = time.monotonic()
        path = f"/datastore/label?image={CASE}"
        assert put(server, path, "label", content) == 422
        assert (
            put(server, "/datastore/image?image=bomb", "file", content) == 422
        )
        body, kind = encode_form(
            {"params": "{}"}, {"file": ("a.nii.gz", content)}
        )
        headers = {"content-type": kind}
        assert server.ask("POST", "/infer/made_up", body, headers).code == 422
        assert time.monotonic() - began < 60
    assert process.memory_info().rss - before < 300e6


def test_refused_uploads_leave_nothing_behind(
    server: Server, home: Path, label: bytes
) -> None:
    for number in range(20):
        content = (b"nonsense", label[:500], b"")[number % 3]
        assert (
            put(server, f"/datastore/label?image={CASE}", "label", content)
            == 422
        )
        assert (
            put(server, f"/datastore/image?image=n{number}", "file", content)
            == 422
        )
        assert (
            put(server, "/datastore/label?image=nobody", "label", label) == 404
        )
    wait_until(lambda: not uploads(home))


def test_images_that_are_uploaded_at_once_are_all_listed(
    server: Server, image: bytes
) -> None:
    names = [f"upload_{number:02d}" for number in range(20)]

    def send(name: str) -> int:
        return put(server, f"/datastore/image?image={name}", "file", image)

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(send, names)) == {200}
    listed = server.ask("GET", "/datastore/?output=all").json()["objects"]
    assert set(names) <= set(listed)


def test_large_parameters_do_not_hold_others_up(server: Server) -> None:
    with prompt(server):
        body = b'{"a": "' + b"x" * 50_000_000 + b'"}'
        headers = {"content-type": "application/json"}
        assert server.ask("POST", "/train/made_up", body, headers).code == 413


def test_a_malformed_note_of_a_case_harms_nobody(server: Server) -> None:
    for strategy in ("x", 3, [1], {"a": "b"}, {"a": {"ts": "x"}}):
        body, kind = encode_form(
            {"info": json.dumps({"strategy": strategy})}, {}
        )
        path = f"/datastore/image/info?image={CASE}"
        answer = server.ask("PUT", path, body, {"content-type": kind})
        assert answer.code == 400, answer.body
    for name in ("worst_first", "first", "random"):
        answer = server.ask(
            "POST",
            f"/activelearning/{name}",
            b"{}",
            {"content-type": "application/json"},
        )
        assert answer.code == 200
        assert answer.json()["id"]


def test_nothing_runs_in_the_servers_own_process(server: Server) -> None:
    headers = {"content-type": "application/json"}
    for path in ("/train/made_up", "/scoring/quality", "/batch/infer/made_up"):
        answer = server.ask("POST", f"{path}?run_sync=true", b"{}", headers)
        assert answer.code == 400
    for steps in (0, -1, "x", 1.5, 10**9):
        body = json.dumps({"steps": steps}).encode()
        assert server.ask("POST", "/train/made_up", body, headers).code == 400


def test_no_answer_tells_where_files_lie(
    server: Server, home: Path, image: bytes
) -> None:
    body, kind = encode_form({}, {"files": ("a.nii.gz", image)})
    session = server.ask("PUT", "/session/", body, {"content-type": kind})
    number = session.json()["session_id"]
    answers = [session.body]
    for path in (
        f"/session/{number}",
        "/info/",
        "/datastore/?output=all",
        "/datastore/?output=train",
        f"/datastore/image/info?image={CASE}",
        "/train/",
        "/scoring/",
        "/medseg/versions",
        f"/datastore/image?image={'a' * 300}",
        f"/datastore/label?label={CASE}&tag=none",
    ):
        answers.append(server.ask("GET", path).body)
    digest = "SHA256:" + "0" * 64
    path = f"/datastore/image?image={CASE}&check_sum={digest}"
    answers.append(server.ask("HEAD", path).body)
    answers.append(server.ask("HEAD", path.replace("SHA256", "CRC")).body)
    for answer in answers:
        assert str(home).encode() not in answer
        assert b"Traceback" not in answer
    assert server.ask("DELETE", f"/session/{number}").code == 200


def test_requests_whose_clients_have_gone_hold_nobody_up(
    server: Server, home: Path
) -> None:
    port = int(server.url.rpartition(":")[2])
    body, kind = encode_form({"params": "{}"}, {})
    head = (
        f"POST /infer/made_up?image={CASE} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    began = time.monotonic()
    slicer_client(server.url, home).infer("made_up", CASE, {})
    alone = time.monotonic() - began
    for _ in range(60):
        with socket.create_connection(("127.0.0.1", port), 30) as connection:
            connection.sendall(head.encode() + body)
            # Reset, as by a viewer that was closed.
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
    time.sleep(0.5)
    began = time.monotonic()
    slicer_client(server.url, home).infer("made_up", CASE, {})
    assert time.monotonic() - began < 5 * alone + 5
    wait_until(lambda: not uploads(home), 60)


def test_who_asks_for_too_much_at_once_is_told_to_wait(server: Server) -> None:
    body, kind = encode_form({"params": "{}"}, {})
    headers = {"content-type": kind}

    def ask(_: int) -> int:
        path = f"/infer/made_up?image={CASE}&output=json"
        return server.ask("POST", path, body, headers).code

    with prompt(server), ThreadPoolExecutor(30) as pool:
        codes = list(pool.map(ask, range(30)))
    assert set(codes) == {200, 429}


def test_connections_that_say_nothing_are_ended(server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    with contextlib.ExitStack() as stack, prompt(server):
        for _ in range(200):
            connection = socket.create_connection(("127.0.0.1", port), 30)
            stack.enter_context(contextlib.closing(connection))
            with contextlib.suppress(OSError):  # past the bound it is closed
                connection.send(b"GET /info/ HT")
    assert server.ask("GET", "/info/").code == 200


def picture_of(folder: Path) -> dict[str, str]:
    """Return the hash of each file below a folder."""
    return {
        str(file.relative_to(folder)): hash_file(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_no_parameter_of_any_endpoint_leads_elsewhere(
    server: Server, home: Path
) -> None:
    schema = server.ask("GET", "/openapi.json").json()
    attacks = list(list_attacks(schema))
    assert len(attacks) > 1500
    address = urlsplit(server.url)
    kept = ("labels", "replaced", "versions", "added")
    served = (home / "state" / "served").read_text()
    before = {name: picture_of(home / "state" / name) for name in kept}
    before["data"] = picture_of(home / "data")
    wrong = []
    secrets = (str(home).encode(), b"Traceback", b"root:", b"site-packages")
    with prompt(server):
        connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=60
        )
        for attack in attacks:
            connection.request(
                attack.method, attack.target, attack.body, dict(attack.headers)
            )
            answer = connection.getresponse()
            body = answer.read()
            leaks = any(secret in body for secret in secrets)
            if answer.status >= 500 or leaks or "x-evil" in answer.headers:
                wrong.append((answer.status, body[:200], attack))
        connection.close()
    assert not wrong, f"{len(wrong)}: {wrong[:5]}"
    after = {name: picture_of(home / "state" / name) for name in kept}
    after["data"] = picture_of(home / "data")
    assert after == before
    assert (home / "state" / "served").read_text() == served
    assert "Traceback" not in server.log.read_text()
    wait_until(lambda: not uploads(home))


def test_files_are_their_owners_alone(server: Server, home: Path) -> None:
    for path in (home / "state").rglob("*"):
        mode = path.stat().st_mode & 0o777
        assert mode & 0o077 == 0, f"{path}: {mode:o}"


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_with_its_training_and_keeps_its_lock_till_then(
    home: Path, label: bytes, number: signal.Signals
) -> None:
    studies = home / "data" / "imagesTr"
    state = home / f"state_{number.name}"
    with run_server(home / "bundle", studies, state) as server:
        for case in range(CASES):
            path = f"/datastore/label?image=phantom_{case:03d}"
            file = home / "data" / "labelsTr" / f"phantom_{case:03d}.nii.gz"
            assert put(server, path, "label", file.read_bytes()) == 200
        headers = {"content-type": "application/json"}
        for _ in range(2):  # one runs, one waits
            body = b'{"steps": 100000}'
            path = "/train/made_up?enqueue=true"
            assert server.ask("POST", path, body, headers).code == 200
        own = psutil.Process(server.process.pid)
        wait_until(lambda: bool(own.children(recursive=True)))
        children = own.children(recursive=True)
        began = time.monotonic()
        os.kill(server.process.pid, number)
        server.process.wait(timeout=60)
        assert time.monotonic() - began < 10 * 2  # tests share two processors
        _, alive = psutil.wait_procs(children, timeout=0)
        assert not alive, "a training run outlived its server's lock"
    with run_server(home / "bundle", studies, state) as server:
        status = server.ask("GET", "/datastore/").json()
        assert status["completed"] == CASES


def test_http_is_spoken_to_the_letter(server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    for head in (
        b"GET /info/ HTTP/1.1\r\nHost: [\r\n\r\n",
        b"GET /info/ HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://[\r\n\r\n",
        b"GET /info/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: x\r\n\r\n",
        b"GET  /info/ HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.connect()
        assert connection.sock is not None
        connection.sock.sendall(head)
        connection.sock.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.sock.recv(65536):
            answer += chunk
        connection.close()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:80]
    assert "Traceback" not in server.log.read_text()
