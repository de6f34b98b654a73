"""The run folder: whole files, weights without code, one training at a time."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import OrderedDict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg.bundle.weights import load_weights
from medseg.errors import CheckpointError, OutputError
from medseg.training.run_folder import RunFolder

FACTS = {"run_id": "0" * 32, "data": "/data", "fold": 0}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.write_info(FACTS)
    return run


def test_a_run_begins_and_ends(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.require_empty()
    assert not run.has_begun
    run.write_info(FACTS | {"fold": None})
    assert run.has_begun
    assert not run.is_finished
    assert run.read_info() == FACTS | {"fold": None}
    run.metrics.write_text("{}")
    assert run.is_finished


def test_a_new_run_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").write_text("x")
    RunFolder(tmp_path / "empty").require_empty()
    for name, why in (("file", "is a file"), ("full", "not empty")):
        with pytest.raises(OutputError, match=why):
            RunFolder(tmp_path / name).require_empty()


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run to resume"):
        RunFolder(tmp_path).read_info()


@pytest.mark.parametrize(
    "note", ["", "[]", "{}", '{"run_id": 1, "data": "a", "fold": 0}', "\x00"]
)
def test_a_damaged_run_json_is_refused(note: str, folder: RunFolder) -> None:
    folder.info.write_text(note)
    with pytest.raises(CheckpointError, match=r"run\.json is damaged"):
        folder.read_info()


# --- what is kept ---


def test_a_checkpoint_comes_back_bit_for_bit(folder: RunFolder) -> None:
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "plain": [1, 2.5, "text", None, True, {"a": (1, 2)}, float("nan")],
        "half": torch.randn(3).bfloat16(),
    }
    assert folder.load_checkpoint() is None
    folder.save_checkpoint(state)
    found = folder.load_checkpoint()
    assert found is not None
    assert repr(found["plain"]) == repr(state["plain"])
    assert torch.equal(found["half"], state["half"])
    for name, value in state["network"].items():
        assert torch.equal(found["network"][name], value)
    optimizer.load_state_dict(found["optimizer"])


def test_weights_are_plain_tensors_on_the_cpu_whatever_they_were(
    folder: RunFolder,
) -> None:
    weight = torch.nn.Parameter(torch.randn(4, 4))
    folder.save_weights(
        OrderedDict(
            a=weight, b=weight[:2].T, c=torch.zeros((), dtype=torch.long)
        )
    )
    found = load_weights(folder.weights)
    assert list(found) == ["a", "b", "c"]
    assert torch.equal(found["a"], weight)
    assert torch.equal(found["b"], weight[:2].T)
    assert not any(
        isinstance(value, torch.nn.Parameter) for value in found.values()
    )
    assert torch.load(folder.weights, weights_only=True).keys() == found.keys()


def test_a_failed_write_leaves_the_last_checkpoint(folder: RunFolder) -> None:
    folder.save_checkpoint({"step": 1})
    with pytest.raises(Exception, match=r"cannot pickle|Can't"):
        folder.save_checkpoint({"step": 2, "odd": lambda: None})
    assert folder.load_checkpoint() == {"step": 1}
    assert [path.name for path in folder.checkpoint.parent.iterdir()] == [
        "last.pt"
    ]


def test_a_full_disk_leaves_the_last_weights(small_disk: Path) -> None:
    run = RunFolder(small_disk)
    run.save_weights({"a": torch.ones(1)})
    with pytest.raises(OutputError):
        run.save_weights({"a": torch.ones(1 << 20)})
    assert load_weights(run.weights) == {"a": torch.ones(1)}
    assert [path.name for path in run.weights.parent.iterdir()] == ["model.pt"]


# --- what is refused ---


@pytest.mark.parametrize("content", [[1], "text", torch.ones(1)])
def test_a_checkpoint_of_something_else_is_refused(
    content: Any, folder: RunFolder
) -> None:
    folder.checkpoint.parent.mkdir()
    torch.save(content, folder.checkpoint)
    with pytest.raises(
        CheckpointError, match="not a checkpoint of a training run"
    ):
        folder.load_checkpoint()


# --- one at a time ---

TRAINS = """
    import sys, pathlib
    from medseg.training.run_folder import RunFolder
    with RunFolder(pathlib.Path(sys.argv[1])).locked():
        print("locked", flush=True)
        sys.stdin.read()
"""


def test_two_processes_do_not_train_in_one_folder(folder: RunFolder) -> None:
    call = [sys.executable, "-c", textwrap.dedent(TRAINS), str(folder.path)]
    with subprocess.Popen(
        call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with (
            pytest.raises(CheckpointError, match="another process"),
            folder.locked(),
        ):
            pass
        other.kill()
        other.wait()
    with folder.locked():  # a killed process leaves no lock behind
        pass
    with folder.locked():
        pass


def claim(path: Path) -> str:
    return RunFolder(path).claim().path.name


def test_runs_that_begin_at_once_get_folders_of_their_own(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a" / "20260101-120000-fold0"
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        names = list(pool.map(claim, [path] * 8))
    expected = [path.name, *(f"{path.name}-{number}" for number in range(2, 9))]
    assert sorted(names) == sorted(expected)
    assert sorted(each.name for each in path.parent.iterdir()) == sorted(names)


def test_a_folder_that_no_run_began_in_is_given_up(tmp_path: Path) -> None:
    empty = RunFolder(tmp_path / "a" / "empty").claim()
    begun = RunFolder(tmp_path / "b" / "begun").claim()
    other = RunFolder(tmp_path / "b" / "other").claim()
    begun.write_info(FACTS)
    for folder in (empty, begun, other):
        folder.release()
    left = [each.relative_to(tmp_path) for each in tmp_path.glob("*/*")]
    assert left == [Path("b/begun")]
    assert not (tmp_path / "a").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for parent in ("file", "link"):
        with pytest.raises(OutputError, match="cannot be made"):
            RunFolder(tmp_path / parent / "run").claim()
