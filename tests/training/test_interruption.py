"""A run that is asked to stop does so after its step; asked twice, at once."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from medseg.training.interruption import RunInterrupted, catch_interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(
    number: signal.Signals, tmp_path: Path
) -> None:
    asked: list[str] = []
    saved: list[str] = []

    def announce() -> None:
        asked.append("stop")

    former = signal.getsignal(number)
    with catch_interruption(announce) as interruption:
        interruption.stop_if_requested(lambda: saved.append("x"), tmp_path, 6)
        assert not saved
        signal.raise_signal(number)
        assert (interruption.is_requested, asked) == (True, ["stop"])
        with pytest.raises(RunInterrupted) as interrupted:
            interruption.stop_if_requested(
                lambda: saved.append("checkpoint"), tmp_path, 7
            )
        assert (interrupted.value.step, saved) == (7, ["checkpoint"])
        assert str(interrupted.value) == f"Step 7 is saved in {tmp_path}."
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is former


def test_in_other_threads_nothing_changes() -> None:
    seen: list[bool] = []

    def run() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with catch_interruption(lambda: None) as interruption:
            seen.append(interruption.is_requested)
            seen.append(signal.getsignal(signal.SIGTERM) is not before)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False, False]
