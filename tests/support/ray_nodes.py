"""A Ray cluster of two nodes on this machine, whose processes can be killed one by one."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

POISON = "poison"
"""A worker that opens a file of this name dies at once."""

_TRIES = 4
"""Ray gives a node up that takes a quarter of a minute to start, as on a busy machine."""

_KILLER = f"""
import os, signal, sys

def look(event, arguments):
    if event == "open" and "{POISON}" in os.path.basename(str(arguments[0])):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(look)
"""


class RayNodes:
    """Two raylets with a CPU each.

    Attributes:
        address: Of the head.
        session: Where Ray keeps its logs.
        environment: Variables that whoever joins it needs: its token, and that it asks for one.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self.address = f"127.0.0.1:{_find_ports(1)[0]}"
        self.session = home / "session"
        token = home / "token"
        token.write_text(secrets.token_hex(32))
        # A head asks for a token, or not, by what lies in the home folder; who joins it does not.
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
        }
        self._agents: list[psutil.Process] = []
        (home / "sitecustomize.py").write_text(_KILLER)

    def start(self) -> None:
        """Start the head and one more node."""
        port = self.address.rpartition(":")[2]
        self._start(
            "--head",
            *("--node-ip-address=127.0.0.1", f"--port={port}"),
            *("--include-dashboard=false", f"--temp-dir={self.session}"),
        )
        self._start(f"--address={self.address}", "--node-ip-address=127.0.0.1")

    def _start(self, *options: str) -> None:
        ports = ("runtime-env-agent-port", "dashboard-agent-grpc-port")
        ports += ("dashboard-agent-listen-port", "metrics-export-port")
        found = _find_ports(len(ports))
        fixed = [
            f"--{name}={port}" for name, port in zip(ports, found, strict=True)
        ]
        command = [
            Path(sys.executable).with_name("ray"),
            "start",
            "--num-cpus=1",
        ]
        command += ["--object-store-memory=80000000", "--disable-usage-stats"]
        paths = [str(self._home), str(Path(__file__).parents[2])]
        variables = self.environment | {
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
        }
        there = self.list_processes()
        for _ in range(_TRIES):
            done = subprocess.run(
                [*map(str, command), *fixed, *options],
                env=os.environ | variables,
                capture_output=True,
                text=True,
            )
            if done.returncode == 0:
                break
            left = [one for one in self.list_processes() if one not in there]
            _kill(left)
        assert done.returncode == 0, done.stdout + done.stderr
        # They outlive a raylet that is killed, by some seconds.
        self._agents += self.list_raylets()[-1].children(recursive=True)

    def list_processes(self, name: str = "") -> list[psutil.Process]:
        """Return the processes of this cluster whose command has a text in it, oldest first."""
        found = []
        for process in psutil.process_iter():
            try:
                command = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if str(self.session) in command and name in command:
                found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def list_raylets(self) -> list[psutil.Process]:
        """Return the raylets, the head's first."""
        return self.list_processes("raylet/raylet")

    def list_workers(self) -> list[psutil.Process]:
        """Return the processes that work on a task right now."""
        workers = []
        for raylet in self.list_raylets():
            for child in raylet.children():
                if child.name().startswith("ray::_call"):
                    workers.append(child)
        return workers

    def kill_head(self) -> None:
        """Kill the head with all that runs on its node."""
        head = self.list_raylets()[:1] + self.list_processes("gcs_server")
        _kill(head)

    def stop(self) -> None:
        """Kill all that is left."""
        workers = []
        for raylet in self.list_raylets():
            workers += raylet.children(recursive=True)
        _kill([*self.list_processes(), *workers, *self._agents])


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=30)


def _find_ports(count: int) -> list[int]:
    """Return free ports, all different."""
    with ExitStack() as stack:
        ports = []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            ports.append(int(one.getsockname()[1]))
    return ports


@contextmanager
def ray_nodes() -> Iterator[RayNodes]:
    """Start a cluster; nothing of it is left at the end."""
    # Sockets have short paths only.
    home = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    nodes = RayNodes(home)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()
        assert not nodes.list_processes()
        shutil.rmtree(home, ignore_errors=True)
