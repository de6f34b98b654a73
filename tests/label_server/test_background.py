"""Tasks in processes of their own: what they print is kept, how they end is known."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any

import psutil
import pytest

from medseg.label_server.background import KEPT_LINES, make_command, run_task


def new_task(**request: Any) -> dict[str, Any]:
    return {"id": "1", "status": "SUBMITTED", "request": request}


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


@pytest.mark.parametrize(
    ("code", "status"), [(0, "DONE"), (1, "ERROR"), (7, "ERROR")]
)
def test_the_exit_code_decides_the_status(code: int, status: str) -> None:
    task, processes = new_task(), {}
    run_task(
        task, python(f"import sys; print('x'); sys.exit({code})"), processes
    )
    assert task["status"] == status
    assert list(task["details"]) == ["x"]
    assert not processes
    assert time.strptime(task["end_ts"], "%Y-%m-%d %H:%M:%S")


def test_the_last_lines_of_both_streams_are_kept() -> None:
    task = new_task()
    script = "import sys\nfor n in range(30): print(n, file=sys.stderr, flush=True); print()"
    run_task(task, python(script), {})
    assert list(task["details"]) == [
        str(number) for number in range(30 - KEPT_LINES, 30)
    ]


def test_output_that_is_no_text_does_no_harm() -> None:
    task = new_task()
    run_task(
        task, python("import sys; sys.stdout.buffer.write(b'a\\xff\\n')"), {}
    )
    assert list(task["details"]) == ["a\ufffd"]


def test_a_running_task_can_be_watched_and_stopped() -> None:
    task: dict[str, Any] = new_task()
    processes: dict[str, subprocess.Popen[str]] = {}
    script = "import time; print('ready', flush=True); time.sleep(60)"
    work = threading.Thread(
        target=run_task, args=(task, python(script), processes)
    )
    work.start()
    end = time.monotonic() + 30
    while not task.get("details") and time.monotonic() < end:
        time.sleep(0.01)
    assert task["status"] == "RUNNING"
    assert list(task["details"]) == ["ready"]
    task["status"] = "STOPPED"
    processes["1"].kill()
    work.join(30)
    assert task["status"] == "STOPPED", "who stopped it has said so"
    assert not processes


def test_a_request_reaches_the_process_as_json() -> None:
    request = {"model": "made up", "images": "unlabeled", "steps": 5}
    *start, method, text, parent = make_command("train", request)
    assert parent == str(os.getpid())
    assert start == [sys.executable, "-m", "medseg.label_server.background"]
    assert method == "train"
    assert text == '{"model": "made up", "images": "unlabeled", "steps": 5}'


TASK = """
import sys, time
from medseg.label_server.background import exit_with_parent
exit_with_parent(int(sys.argv[1]))
print("ready", flush=True)
time.sleep(60)
"""
SERVER = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1], str(os.getpid())])
"""


def test_a_task_ends_with_a_server_that_was_killed() -> None:
    command = [*python(SERVER), TASK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        tasks = psutil.Process(server.pid).children()
        server.kill()
    _, alive = psutil.wait_procs(tasks, timeout=30)
    assert not alive
    assert len(tasks) == 1


def test_a_task_ends_at_once_if_its_server_is_gone_already() -> None:
    done = subprocess.run(
        [*python(TASK), "1"], capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 1
