"""Two nodes of Ray give what one process gives, whatever of them is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.killed_batches import Wreck, facts, results, write_scans
from support.ray_nodes import POISON, RayNodes, ray_nodes

import medseg
from medseg.inference.ledger import read_ledger

ROOT = Path(__file__).resolve().parents[2]
SCANS = 40

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.timeout(900),
]


@pytest.fixture
def call(tmp_path: Path, untrained_bundle: Callable[..., Path]) -> list[str]:
    """The call that segments into ``out``; ``whole`` is what nobody kills leaves."""
    bundle = untrained_bundle()
    scans = write_scans(tmp_path / "zaphod", SCANS)
    medseg.segment(bundle, scans, tmp_path / "whole", device="cpu", threads=1)
    command = [sys.executable, "-m", "medseg", "segment", bundle, scans]
    command += [tmp_path / "out", "--device", "cpu", "--threads", "1"]
    return [str(each) for each in command]


def start(
    call: list[str], nodes: RayNodes | SimpleNamespace
) -> subprocess.Popen[str]:
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*call, "--on", f"ray={nodes.address}"],
        env=os.environ | nodes.environment | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(driver: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = driver.communicate(timeout=300)
    return driver.returncode, said


def await_done(driver: subprocess.Popen[str], out: Path, count: int) -> None:
    ledger = out / "ledger.jsonl"
    end = time.monotonic() + 200
    while not ledger.exists() or ledger.read_bytes().count(b"\n") < count:
        assert driver.poll() is None, finish(driver)
        assert time.monotonic() < end
        time.sleep(0.05)


def test_nodes_give_what_one_process_gives_and_their_logs_name_nobody(
    call: list[str], nodes: RayNodes, tmp_path: Path
) -> None:
    code, said = finish(start([*call, "--json"], nodes))
    assert code == 0, said
    Wreck(tmp_path / "out", tmp_path / "whole").check_whole()
    answer = json.loads(said[said.index("[\n") :])
    assert {entry["state"] for entry in answer} == {"done"}
    for log in nodes.session.rglob("*"):
        if log.is_file():
            assert b"zaphod" not in log.read_bytes(), log


def test_a_call_without_the_token_is_told_so(
    call: list[str], nodes: RayNodes
) -> None:
    nobody = SimpleNamespace(address=nodes.address, environment={})
    code, said = finish(start(call, nobody))
    assert code == 2, said
    assert "asks for a token, the same RAY_AUTH_MODE" in said
    assert "Traceback" not in said


def test_a_scan_that_kills_its_worker_fails_alone(
    call: list[str], nodes: RayNodes, tmp_path: Path
) -> None:
    scans = Path(call[5])
    shutil.copyfile(scans / "scan_00.nii.gz", scans / f"{POISON}.nii.gz")
    code, said = finish(start(call, nodes))
    assert code == 1, said
    assert "raylet" not in said
    entries, damaged = read_ledger(tmp_path / "out/ledger.jsonl")
    assert not damaged
    poison = entries[POISON]
    assert poison.state == "failed"
    assert "its process died 3 times" in poison.error
    whole, _ = read_ledger(tmp_path / "whole/ledger.jsonl")
    others = {name: entry for name, entry in entries.items() if name != POISON}
    assert facts(others) == facts(whole)


def test_killed_workers_and_drivers_lose_nothing(
    call: list[str], nodes: RayNodes, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    wreck = Wreck(out, tmp_path / "whole")
    driver = start(call, nodes)
    await_done(driver, out, 4)
    nodes.list_workers()[0].kill()
    await_done(driver, out, 10)
    driver.kill()
    finish(driver)
    wreck.check()
    driver = start(call, nodes)
    await_done(driver, out, 20)
    driver.send_signal(signal.SIGINT)
    began = time.monotonic()
    code, said = finish(driver)
    assert code == 130, said
    assert time.monotonic() - began < 20
    assert "Interrupted" in said
    wreck.check()
    code, said = finish(start(call, nodes))
    assert code == 0, said
    wreck.check_whole()


def test_a_lost_node_loses_nothing_and_a_lost_head_ends_the_call_cleanly(
    call: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    wreck = Wreck(out, tmp_path / "whole")
    with ray_nodes() as own:
        driver = start(call, own)
        await_done(driver, out, 4)
        own.list_raylets()[1].kill()
        await_done(driver, out, 16)
        assert driver.poll() is None
        own.kill_head()
        code, said = finish(driver)
    assert code == 75, said
    assert "medseg: the head of the Ray cluster does not answer" in said
    assert "Traceback" not in said
    wreck.check()
    medseg.segment(call[4], call[5], out, device="cpu", threads=1)
    assert set(results(out)) == set(results(tmp_path / "whole"))
    wreck.check_whole()
