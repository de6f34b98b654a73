"""Folds on two nodes of Ray end where one process ends, whatever of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.bundles import content, write_json
from support.ray_nodes import POISON, RayNodes, ray_nodes

from medseg import train
from medseg.bundle.bundle import load_bundle
from medseg.bundle.weights import load_weights
from medseg.datasets.dataset import open_dataset
from medseg.testing import write_dataset
from medseg.training.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
FOLDS = 2
STEPS = 200

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.timeout(900),
]


class Home:
    """A data set of two folds, and what one process makes of it.

    Attributes:
        out: Where the cluster trains.
        whole: Where one process did.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = write_dataset(
            folder / "zaphod", 4, shape=(24, 20, 16), spacing=9.0
        )
        made = content(
            data={"folds": FOLDS},
            preprocessing={
                "intensity": {"kind": "window", "low": -200, "high": 300}
            },
            training={
                "steps": STEPS,
                "validate_every": 100,
                "checkpoint_every": 10,
                "optimizer": "adamw",
            },
            tracking={"register_model": False, "experiment": "folds"},
        )
        self.bundle = write_json(folder, made)
        self.whole = self.train(folder / "alone" / "whole")
        self.out = folder / "out"

    def train(self, out: Path, *, resume: bool = False) -> Path:
        return train(
            self.bundle,
            data=self.data,
            out=out,
            fold="all",
            device="cpu",
            threads=1,
            resume=resume,
        )

    def start(self, nodes: RayNodes) -> subprocess.Popen[str]:
        """Start the call on the cluster: the same each time."""
        call = [sys.executable, "-m", "medseg", "train", str(self.bundle)]
        call += ["--data", str(self.data), "--out", str(self.out), "--resume"]
        call += ["--fold", "all", "--device", "cpu", "--threads", "1"]
        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*call, "--on", f"ray={nodes.address}"],
            env=os.environ | nodes.environment | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def fold(self, number: int) -> RunFolder:
        return RunFolder(self.out / "folds" / f"fold_{number}")

    def await_step(
        self, driver: subprocess.Popen[str], fold: int, step: int
    ) -> None:
        """Wait until a checkpoint holds at least so many steps of a fold."""
        end = time.monotonic() + 300
        while self.read_step(fold) < step:
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)

    def read_step(self, fold: int) -> int:
        checkpoint = self.fold(fold).load_checkpoint()
        return -1 if checkpoint is None else checkpoint["learner"]["step"]

    def check_whole(self) -> None:
        """Make sure that nothing tells the cluster's bundle from the other."""
        files = {
            str(file.relative_to(folder))
            for folder in (self.out, self.whole)
            for file in folder.rglob("*.pt")
        }
        assert len(files) == 1 + FOLDS + 2 * FOLDS
        for name in files:
            if "checkpoints" not in name:
                found = load_weights(self.out / name)
                expected = load_weights(self.whole / name)
                assert list(found) == list(expected)
                same = map(torch.equal, found.values(), expected.values())
                assert all(same), name
        assert not (self.out / "events").exists()

    def check_cache(self) -> None:
        """Make sure that nodes preprocessed what one process does."""
        own, other = self.folder, self.folder / "alone"
        found = read_files(own / "preprocessed")
        assert found == read_files(other / "preprocessed")
        assert len(found) == 4 * 4


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def finish(driver: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = driver.communicate(timeout=600)
    return driver.returncode, said


def test_whatever_is_killed_the_folds_end_where_one_process_ends(
    home: Home, nodes: RayNodes
) -> None:
    driver = home.start(nodes)
    home.await_step(driver, 0, 20)
    home.await_step(driver, 1, 20)
    nodes.list_workers()[0].kill()
    home.await_step(driver, 0, 50)
    home.await_step(driver, 1, 50)
    driver.kill()
    finish(driver)
    driver = home.start(nodes)
    home.await_step(driver, 0, 80)
    home.await_step(driver, 1, 80)
    driver.send_signal(signal.SIGINT)
    code, said = finish(driver)
    assert code == 130, said
    assert "stopping after this step" in said
    assert "with --resume to continue" in said
    assert not nodes.list_workers()
    code, said = finish(home.start(nodes))
    assert code == 0, said
    assert "resuming at step" in said
    home.check_whole()
    home.check_cache()
    for log in nodes.session.rglob("*"):
        if log.is_file():
            assert b"zaphod" not in log.read_bytes(), log


def test_what_kills_its_processes_is_named_as_a_case_or_as_a_fold(
    home: Home, nodes: RayNodes
) -> None:
    for file in home.data.rglob("phantom_000.nii.gz"):
        file.rename(file.with_name(f"{POISON}.nii.gz"))
    listed = home.data / "dataset.json"
    text = listed.read_text()
    listed.write_text(text.replace("phantom_000", POISON))
    code, said = finish(home.start(nodes))
    assert code == 2, said
    assert "1 bad case" in said
    assert f"{POISON}: the process that read it died 3 times" in said
    # Here it kills nobody: nodes open it again to score it, when their fold is trained.
    spec = load_bundle(home.bundle).spec
    open_dataset(home.data, spec, None, home.folder / "preprocessed")
    code, said = finish(home.start(nodes))
    assert code == 2, said
    assert "died 3 times without getting from one" in said
    finished = [home.fold(fold).is_finished for fold in range(FOLDS)]
    assert sorted(finished) == [False, True]
    assert home.read_step(finished.index(False)) == STEPS
    home.train(home.out, resume=True)


def test_a_lost_node_costs_few_steps_and_a_lost_head_ends_the_call(
    home: Home,
) -> None:
    with ray_nodes() as own:
        driver = home.start(own)
        home.await_step(driver, 0, 20)
        home.await_step(driver, 1, 20)
        own.list_raylets()[1].kill()
        # The one that was there waits for the other to end.
        home.await_step(driver, 0, 60)
        home.await_step(driver, 1, 60)
        own.kill_head()
        code, said = finish(driver)
    assert code == 75, said
    assert "run the same command with --resume" in said
    assert "Traceback" not in said
    home.train(home.out, resume=True)
    home.check_whole()
