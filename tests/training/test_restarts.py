"""The run of processes that torchrun starts again."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.errors import CheckpointError
from medseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from medseg.training.restarts import (
    may_begin,
    must_resume,
    require_shared_run,
)
from medseg.training.run_folder import RunFolder


def test_processes_that_were_started_again_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not must_resume(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not must_resume(None)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert must_resume(tmp_path)
    with pytest.raises(CheckpointError, match="--out"):
        must_resume(None)


def test_only_under_torchrun_what_is_resumed_may_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not may_begin(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    assert may_begin(tmp_path)
    assert not may_begin(None)
    RunFolder(tmp_path).write_info({})
    assert not may_begin(tmp_path)


class _Two(ProcessGroup):
    """The second of two processes, the first of which sees no run."""

    def gather(self, value: object) -> list[object]:  # type: ignore[override]
        """Return what the first one sees, and what this one does."""
        return [False, value]


def test_a_run_that_the_main_process_does_not_see_is_not_begun_anew(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path)
    require_shared_run(folder, _Two())
    folder.write_info({})
    require_shared_run(folder, SINGLE_PROCESS)
    with pytest.raises(CheckpointError, match="all machines share"):
        require_shared_run(folder, _Two())
