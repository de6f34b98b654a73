"""Training runs and scorings in processes of their own, started in MONAI Label's place.

MONAI Label's own processes print where the scans lie and whole exceptions, and viewers show the
last lines that a task prints.

    python -m medseg.label_server.background METHOD REQUEST PARENT
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from datetime import datetime
from typing import Any

from medseg._support.platform.processes import is_running
from medseg.label_server.logs import withhold_texts

Task = MutableMapping[str, Any]
"""MONAI Label's record of a task: ``id``, ``request``, ``status``, ``details`` and times."""

KEPT_LINES = 20

_RUNNING = "RUNNING"


def replace_background_tasks() -> None:
    """Let MONAI Label start this module instead of its own."""
    from monailabel.utils.async_tasks import utils

    def run(
        task: Task, method: str, callback: Callable[[Task], None] | None = None
    ) -> None:
        processes = utils.background_processes[method]
        run_task(task, make_command(method, task["request"]), processes)
        if callback is not None:
            callback(task)

    utils._task_func = run


def make_command(method: str, request: MutableMapping[str, Any]) -> list[str]:
    """Return the command that runs a task."""
    module = "medseg.label_server.background"
    text = json.dumps(request)
    return [sys.executable, "-m", module, method, text, str(os.getpid())]


def run_task(
    task: Task,
    command: Sequence[str],
    processes: MutableMapping[str, subprocess.Popen[str]],
) -> None:
    """Run a task to its end and keep its record up to date.

    Args:
        task: Its record. A status that somebody else sets, such as ``STOPPED``, stays.
        command: What to run; its last lines become the record's ``details``.
        processes: Task's id → process, of those that run; MONAI Label stops them by it.
    """
    details: deque[str] = deque(maxlen=KEPT_LINES)
    task["details"] = details
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PYTHONIOENCODING": "utf-8:replace"},
    )
    processes[task["id"]] = process
    task["status"] = _RUNNING
    with process:
        output = process.stdout or ()
        for line in output:
            if line.strip():
                details.append(line.rstrip())
    processes.pop(task["id"], None)
    now = datetime.now()  # noqa: DTZ005 (MONAI Label's clients expect local time)
    task["end_ts"] = now.strftime("%Y-%m-%d %H:%M:%S")
    if task["status"] == _RUNNING:
        task["status"] = "DONE" if process.returncode == 0 else "ERROR"


def stop_tasks() -> None:
    """End every task that runs or waits, and what it started; return when they are gone."""
    import psutil
    from monailabel.utils.async_tasks import utils

    for executor in utils.background_executors.values():
        executor.shutdown(wait=False, cancel_futures=True)
    started = psutil.Process().children(recursive=True)
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(started, timeout=5)


def exit_with_parent(parent: int) -> None:
    """End this process as soon as the server that started it is gone, even if it was killed.

    Args:
        parent: The server's process ID. It comes from the server itself: asked for here, it would
            be wrong if the server was gone already.
    """

    def watch() -> None:
        # Windows does not say that a parent is gone, and a parent's ID can be given anew.
        while os.getppid() == parent and is_running(parent):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(
        target=watch, daemon=True, name="exit with the server"
    ).start()


def main(method: str, request: str, parent: str) -> None:
    """Run one task in this process.

    Args:
        method: ``train``, ``scoring`` or ``batch_infer``.
        request: The request as JSON.
        parent: The server's process ID.
    """
    exit_with_parent(int(parent))
    withhold_texts()
    from medseg.label_server.shims import install_shims

    install_shims()
    with contextlib.redirect_stdout(sys.stderr):
        from monailabel.interfaces.utils.app import app_instance

        app = app_instance()
    tasks = {
        "train": app.train,
        "scoring": app.scoring,
        "batch_infer": app.batch_infer,
    }
    tasks[method](json.loads(request))


if __name__ == "__main__":
    main(*sys.argv[1:])
