"""Several processes under torchrun train one network, on one machine or on several."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from mlflow import MlflowClient
from support.bundles import content, write_json
from torch import distributed

from medseg import train
from medseg.errors import MedsegError, TrainingError
from medseg.testing import write_dataset
from medseg.training.distributed import (
    SINGLE_PROCESS,
    ProcessGroup,
    end_together,
    explain_lost_processes,
)


def test_the_items_of_a_batch_are_divided_in_order() -> None:
    shares = [ProcessGroup(rank, 3).local_items(6) for rank in range(3)]
    assert shares == [range(2), range(2, 4), range(4, 6)]
    assert SINGLE_PROCESS.local_items(5) == range(5)
    with pytest.raises(
        MedsegError, match="cannot be divided among 3 processes"
    ):
        ProcessGroup(0, 3).local_items(4)


class _SecondMachine(ProcessGroup):
    """The first process of another machine, which notes when all wait for each other."""

    def barrier(self) -> None:
        """Note it."""
        TURNS.append("all wait")


TURNS: list[str] = []


def test_one_process_of_each_machine_prepares_data_after_the_main_one() -> None:
    for group in (
        _SecondMachine(0, 4, 0),
        _SecondMachine(2, 4, 0),
        _SecondMachine(3, 4, 1),
    ):
        TURNS.clear()
        group.main_first(lambda: TURNS.append("data"))
        before = TURNS.index("data")
        assert before == {0: 0, 2: 1, 3: 2}[group.rank]
        assert TURNS.count("all wait") == 3


def test_who_waited_for_a_lost_process_is_told_so() -> None:
    lost = "[pair.cc:553] Connection closed by peer [127.0.0.1]:5"
    with (
        pytest.raises(TrainingError, match="another process"),
        explain_lost_processes(ProcessGroup(0, 2)),
    ):
        raise RuntimeError(lost)
    for group, text in ((SINGLE_PROCESS, lost), (ProcessGroup(0, 2), "a bug")):
        with (
            pytest.raises(RuntimeError, match=re.escape(text)),
            explain_lost_processes(group),
        ):
            raise RuntimeError(text)


def test_the_other_processes_end_after_the_main_one() -> None:
    ends: list[str] = []

    def follow(store: distributed.Store) -> None:
        with end_together(ProcessGroup(1, 2), store):
            pass
        ends.append("other")

    for error in (nullcontext(), pytest.raises(TrainingError)):
        ends.clear()
        store = distributed.HashStore()
        other = threading.Thread(target=follow, args=[store])
        with error, end_together(ProcessGroup(0, 2), store):
            other.start()
            other.join(0.2)
            ends.append("main")
            if not isinstance(error, nullcontext):
                raise TrainingError("it failed")
        other.join(10)
        assert ends == ["main", "other"]


def test_a_process_that_fails_waits_for_nobody() -> None:
    with (
        pytest.raises(TrainingError),
        end_together(ProcessGroup(1, 2), distributed.HashStore()),
    ):
        raise TrainingError("it failed")


def find_port() -> int:
    """Return a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start_node(
    node: int, torchrun: Sequence[str], command: Sequence[str], log: Path
) -> subprocess.Popen[bytes]:
    """Start torchrun as on a machine of its own, with one process.

    Args:
        node: Its number.
        torchrun: Options of torchrun.
        command: Arguments of medseg.
        log: What it prints.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    # Of addresses that all lead here, each node has its own.
    own = ["--local-addr", f"127.0.0.{node + 1}", "--nproc-per-node", "1"]
    with log.open("wb") as file:
        return subprocess.Popen(
            [*launcher, *own, *torchrun, "-m", "medseg", *command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "GLOO_SOCKET_IFNAME": "lo",
            },
        )


def write_task(folder: Path, steps: int, save_every: int) -> tuple[Path, Path]:
    """Write a bundle and a data set."""
    data = write_dataset(folder / "data", 4, shape=(24, 20, 16), spacing=9.0)
    # Dice pools a batch, so a shared batch has another Dice; cross-entropy has not.
    training = {
        "steps": steps,
        "validate_every": steps // 2,
        "checkpoint_every": save_every,
        "batch_size": 2,
        "ce_weight": 1,
        "dice_weight": 0,
        "precision": "fp32",
    }
    made = content(data={"folds": 4}, training=training)
    return write_json(folder, made), data


def load_network(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a run's last checkpoint."""
    file = run / "checkpoints" / "last.pt"
    checkpoint = torch.load(file, weights_only=True)
    network: dict[str, torch.Tensor] = checkpoint["learner"]["network"]
    return network


def assert_same_end(run: Path, other: Path) -> None:
    """Check that two runs learned the same, but for the order in which sums were taken."""
    expected = load_network(other)
    for name, value in load_network(run).items():
        np.testing.assert_allclose(
            value, expected[name], atol=2e-4, err_msg=name
        )


@pytest.mark.slow
def test_two_machines_end_where_one_process_does(tmp_path: Path) -> None:
    bundle, data = write_task(tmp_path, steps=8, save_every=4)
    alone, together = tmp_path / "alone", tmp_path / "together"
    train(bundle, data=data, out=alone, device="cpu")
    # The second machine has copies of its own, and prepares cases for itself.
    copies = shutil.copytree(data, tmp_path / "copies")
    address = ["--master-addr", "127.0.0.1", "--master-port", str(find_port())]
    nodes = []
    for node, own_data in enumerate((data, copies)):
        command = ["train", str(bundle), "--data", str(own_data)]
        command += ["--out", str(together), "--device", "cpu"]
        command += ["--cache", str(tmp_path / f"cache{node}")]
        options = ["--nnodes", "2", "--node-rank", str(node), *address]
        log = tmp_path / f"{node}.log"
        nodes.append(start_node(node, options, command, log))
    codes = [node.wait(timeout=300) for node in nodes]
    first, second = ((tmp_path / f"{node}.log").read_text() for node in (0, 1))
    assert codes == [0, 0], first + second
    assert first.count("Trained bundle") == 1
    assert "Trained bundle" not in second
    for node in (0, 1):
        assert len(list((tmp_path / f"cache{node}").iterdir())) == 4
    assert_same_end(together, alone)
    metrics = json.loads((together / "metrics.json").read_text())
    assert metrics["training_cases"] == 3
    # The other machine wrote nothing, not to MLflow either.
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'made_up'")
    assert len(client.search_runs([experiment.experiment_id])) == 2


@pytest.mark.slow
@pytest.mark.nightly
def test_a_run_goes_on_without_a_machine_that_is_lost(tmp_path: Path) -> None:
    bundle, data = write_task(tmp_path, steps=120, save_every=5)
    alone, run = tmp_path / "alone", tmp_path / "run"
    train(bundle, data=data, out=alone, device="cpu")
    port = find_port()
    options = ["--nnodes", "1:2", "--max-restarts", "3"]
    options += ["--rdzv-backend", "c10d", "--rdzv-id", "job"]
    options += ["--rdzv-endpoint", f"127.0.0.1:{port}"]
    # Or else a node is missed only after half a minute.
    waits = "last_call_timeout=5,keep_alive_interval=2"
    options += ["--rdzv-conf", waits]
    command = ["train", str(bundle), "--data", str(data), "--out", str(run)]
    command += ["--device", "cpu", "--resume"]
    # Started first: where nodes meet is a part of it. The other one has the main process.
    left = start_node(1, options, command, tmp_path / "1.log")
    wait_until(lambda: is_open(port), 120)
    lost = start_node(0, options, command, tmp_path / "0.log")
    checkpoint = run / "checkpoints" / "last.pt"
    wait_until(checkpoint.is_file, 300)
    of_lost = psutil.Process(lost.pid).children(recursive=True)
    assert (run / "run.json").is_file()
    assert not (run / "metrics.json").exists()
    for process in (*of_lost, psutil.Process(lost.pid)):
        process.kill()
    assert lost.wait() == -signal.SIGKILL
    code = left.wait(timeout=300)
    log = (tmp_path / "1.log").read_text()
    assert code == 0, log
    assert "another process of this training has ended" in log
    assert "resuming" in log
    assert (run / "metrics.json").is_file()
    assert_same_end(run, alone)


def is_open(port: int) -> bool:
    """Tell whether something listens at a port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)
