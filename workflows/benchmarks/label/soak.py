"""Does ``medseg label`` grow while people work with it for a day?

Starts the server on a bundle and scans, makes mixed calls as viewers make them (info, next sample,
image, infer, save, list, notes, refused uploads, wrong names), and prints its memory and open files
as they go on. The first quarter of the calls is for what is loaded once.

    python workflows/benchmarks/label/soak.py BUNDLE STUDIES WORK [--calls 2000]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import psutil

ROWS = 10
MARK = "----boundary-of-the-soak"


class Caller:
    """Makes calls, and counts how they are answered.

    Attributes:
        answers: Status → how often.
        status: The last answer's.
        proposal: The last case that was segmented, and its label map.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: Counter[int] = Counter()
        self.status = 0
        self.proposal = ("", b"")

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        request = urllib.request.Request(
            self.url + path, body, dict(headers or {}), method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                content: bytes = answer.read()
                self.status = answer.status
        except urllib.error.HTTPError as error:
            content = error.read()
            self.status = error.code
        self.answers[self.status] += 1
        return content

    def ask_json(self, path: str, content: Mapping[str, Any]) -> Any:
        body = json.dumps(content).encode()
        headers = {"content-type": "application/json"}
        return json.loads(self.ask("POST", path, body, headers))

    def send(
        self, method: str, path: str, file: tuple[str, bytes] | None = None
    ) -> bytes:
        head = f"--{MARK}\r\nContent-Disposition: form-data; name="
        parts = [f'{head}"params"\r\n\r\n{{}}\r\n'.encode()]
        if file is not None:
            field, content = file
            start = f'{head}"{field}"; filename="a.nii.gz"\r\n\r\n'
            parts += [start.encode(), content, b"\r\n"]
        body = b"".join([*parts, f"--{MARK}--\r\n".encode()])
        headers = {"content-type": f"multipart/form-data; boundary={MARK}"}
        return self.ask(method, path, body, headers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("studies", type=Path)
    parser.add_argument("work", type=Path, help="a new folder")
    parser.add_argument("--calls", type=int, default=2000)
    given = parser.parse_args()
    given.work.mkdir(parents=True)
    url, server = start(given)
    try:
        soak(url, psutil.Process(server.pid), given.calls)
    finally:
        server.terminate()
        server.wait()


def start(given: argparse.Namespace) -> tuple[str, subprocess.Popen[bytes]]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    state = given.work / "state"
    call = [sys.executable, "-m", "medseg", "label", given.bundle]
    options = [given.studies, "--state", state, "--port", port]
    server = subprocess.Popen(
        [*map(str, [*call, *options]), "--device", "cpu"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    url = f"http://127.0.0.1:{port}"
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/info/", timeout=60).close()
        except OSError:
            time.sleep(0.5)
        else:
            return url, server
    raise SystemExit("the server did not start")


def soak(url: str, process: psutil.Process, calls: int) -> None:
    caller = Caller(url)
    model = next(iter(json.loads(caller.ask("GET", "/info/"))["models"]))
    listed = json.loads(caller.ask("GET", "/datastore/?output=all"))
    cases = sorted(listed["objects"])
    wait_for_scoring(caller)
    print("| calls | resident MB | descriptors | threads |")
    print("| --- | --- | --- | --- |")
    rows = []
    for number in range(calls + 1):
        if number % max(1, calls // ROWS) == 0:
            rows.append(measure(process))
            print(
                f"| {number} | {rows[-1][0]:.0f} | {rows[-1][1]} | {rows[-1][2]} |"
            )
        call(caller, number, model, cases[number % len(cases)])
    print(f"\nanswers: {dict(sorted(caller.answers.items()))}")
    settled = rows[ROWS // 4 + 1 :]
    memory = max(row[0] for row in settled) - settled[0][0]
    descriptors = max(row[1] for row in settled) - settled[0][1]
    print(
        f"growth after the first quarter: {memory:.0f} MB, {descriptors} descriptors"
    )


def wait_for_scoring(caller: Caller) -> None:
    """The scoring of all cases, which begins with the server, runs in a process of its own."""
    caller.status = 200
    while caller.status == 200:
        time.sleep(1)
        caller.ask("GET", "/scoring/?check_if_running=true")


def measure(process: psutil.Process) -> tuple[float, int, int]:
    memory = process.memory_info().rss / 1e6
    return memory, process.num_fds(), process.num_threads()


def call(caller: Caller, number: int, model: str, case: str) -> None:
    """Make one of the calls that viewers make, in turn."""
    questions = [
        f"/datastore/image?image={quote_plus(case)}",
        "/info/",
        "/datastore/?output=all",
        "/",
        "/datastore/image?image=..%2Fnobody",
        f"/datastore/image/info?image={number}",
    ]
    turn = number % (len(questions) + 4)
    if turn < len(questions):
        caller.ask("GET", questions[turn])
        return
    segmented, label = caller.proposal
    path = f"/datastore/label?image={quote_plus(segmented or case)}"
    match turn - len(questions):
        case 0:
            body = {"client_id": f"reader-{number % 7}"}
            caller.ask_json("/activelearning/worst_first", body)
        case 1:
            infer = f"/infer/{model}?image={quote_plus(case)}&output=image"
            caller.proposal = case, caller.send("POST", infer)
        case 2:
            caller.send("PUT", path, ("label", label))
        case _:
            caller.send("PUT", path, ("label", b"nonsense" * 1000))


if __name__ == "__main__":
    main()
