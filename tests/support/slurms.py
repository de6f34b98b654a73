"""A real Slurm, all of it on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")
CONFIGURATION = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_min_interval=1000000
MinJobAge=3600
KillWait=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""Of the node, only its processors are said: two tasks run at once."""


@dataclass(frozen=True)
class Slurm:
    """A cluster of one node.

    Attributes:
        folder: Its files.
        environment: What its commands need.
    """

    folder: Path
    environment: dict[str, str]

    def call(self, *command: object) -> str:
        """Run one of its commands; return what it printed."""
        done = subprocess.run(
            [str(part) for part in command],
            env=self.environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def read_states(self, job: str) -> dict[str, str]:
        """Return task of an array → its state, such as ``RUNNING``."""
        text = self.call(
            *("squeue", "--noheader", "--array", "--states=all"),
            *("--jobs", job, "--format", "%K %T"),
        )
        return dict(line.split() for line in text.splitlines())

    def wait(self, job: str, wanted: set[str], seconds: float) -> None:
        """Wait until all tasks are in some states."""
        end = time.monotonic() + seconds
        while not set(self.read_states(job).values()) <= wanted:
            assert time.monotonic() < end, self.read_states(job)
            time.sleep(0.5)


@contextlib.contextmanager
def open_slurm(folder: Path) -> Iterator[Slurm]:
    """Start a cluster; skip where Slurm is not installed."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.getuid() != 0:
        pytest.skip("needs root and: apt-get install slurm-wlm munge")
    folder.mkdir(mode=0o755)
    for name in ("spool", "state"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    file = folder / "slurm.conf"
    file.write_text(
        CONFIGURATION.format(host=host, folder=folder, ports=_find_ports())
    )
    environment = os.environ | {"SLURM_CONF": str(file)}
    commands = [
        ["munged", "--foreground", "--force", f"--key-file={key}"],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D"],
    ]
    commands[0] += [
        f"--socket={folder}/munge.socket",
        f"--pid-file={folder}/munge.pid",
        f"--log-file={folder}/munge.log",
        f"--seed-file={folder}/munge.seed",
    ]
    with contextlib.ExitStack() as stack:
        for command in commands:
            process = stack.enter_context(
                subprocess.Popen(
                    command, env=environment, stderr=subprocess.DEVNULL
                )
            )
            stack.callback(process.terminate)
            time.sleep(1)
        slurm = Slurm(folder, environment)
        _wait_for_node(slurm)
        yield slurm


def _wait_for_node(slurm: Slurm) -> None:
    end = time.monotonic() + 30
    while True:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"],
            env=slurm.environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.stdout.strip() == "idle":
            return
        logs = [file.read_text() for file in slurm.folder.glob("*.log")]
        assert time.monotonic() < end, "\n".join(logs)
        time.sleep(0.5)


def _find_ports() -> list[int]:
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(2):
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            ports.append(one.getsockname()[1])
        return ports
