"""A process that trains a fold ends with the call that it trains it for, and not before."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from medseg._support.platform.processes import handle_stop_signals
from medseg.commands import fold_tasks
from medseg.commands.fold_tasks import _CallWatch
from medseg.events import Notice


def test_a_training_ends_with_its_call_and_not_with_a_moment_of_the_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold_tasks, "_LOOK_SECONDS", 0.0)
    folder = tmp_path / "call"
    folder.mkdir()
    watch = _CallWatch(folder)
    event = Notice("on its way")

    def fail(path: Path, **_: Any) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with handle_stop_signals():
        watch(event)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "stat", fail)
            watch(event)
        folder.rmdir()
        with pytest.raises(KeyboardInterrupt):
            watch(event)
        watch(event)
