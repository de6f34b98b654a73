"""How far the work on each case is, and who has it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from medseg import MedsegError, Volume
from medseg.label_server.audit import REQUESTER, Requester
from medseg.label_server.labels import FINAL, ORIGINAL, Labels
from medseg.label_server.state import StateFolder
from medseg.label_server.store import Store
from medseg.label_server.worklist import (
    ASSIGNED_SECONDS,
    LONGEST_COMMENT,
    CaseRecord,
    CaseState,
    Reading,
    Worklist,
)

SCAN = Volume.from_numpy(np.zeros((4, 5, 6)), spacing=(1, 2, 3))


class Clock:
    """Seconds, as the test wants them."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


@pytest.fixture
def worklist(state: StateFolder, clock: Clock) -> Worklist:
    return Worklist(Store(state), clock)


def get(worklist: Worklist, name: str = "a") -> CaseRecord:
    return worklist.get_record(name, "0001")


def save(state: StateFolder, tag: str, person: str) -> None:
    token = REQUESTER.set(Requester(person))
    Labels(state).save("a", tag, np.ones(SCAN.shape, np.uint8), SCAN, {})
    REQUESTER.reset(token)


def test_a_case_goes_from_new_to_reviewed(
    worklist: Worklist, state: StateFolder
) -> None:
    assert get(worklist) == CaseRecord("a")
    save(state, ORIGINAL, "anna")
    assert get(worklist).state == "proposed"
    save(state, FINAL, "anna")
    assert get(worklist).state == "corrected"
    save(state, ORIGINAL, "ben")
    assert get(worklist).state == "corrected"
    worklist.set_state("a", CaseState.REJECTED, "ben")
    record = get(worklist)
    assert (record.state, record.second_reader) == ("rejected", "ben")
    assert record.changed_by == "ben"
    save(state, FINAL, "anna")
    assert get(worklist).state == "corrected"
    assert get(worklist).second_reader == ""


def test_comments_outlive_changes_of_the_state(
    worklist: Worklist, clock: Clock
) -> None:
    worklist.set_comment("a", "look again", "anna")
    worklist.set_state("a", CaseState.REVIEWED, "ben")
    assert get(worklist).comment == "look again"
    assert get(worklist).changed == clock.now
    with pytest.raises(MedsegError, match="at most"):
        worklist.set_comment("a", "x" * (LONGEST_COMMENT + 1), "anna")


def test_people_who_ask_at_once_never_get_the_same_case(
    state: StateFolder,
) -> None:
    names = [f"case_{number:02d}" for number in range(12)]
    people = [f"person_{number:02d}" for number in range(12)]

    def claim(person: str) -> str | None:
        return Worklist(Store(state)).claim(names, person)

    with ThreadPoolExecutor(12) as pool:
        claimed = list(pool.map(claim, people))
    assert sorted(filter(None, claimed)) == names
    assert Worklist(Store(state)).claim(names, "one more") is None


def test_whoever_asks_again_gets_the_same_case_and_keeps_it(
    worklist: Worklist, clock: Clock
) -> None:
    assert worklist.claim(["a", "b"], "anna") == "a"
    assert worklist.claim(["b", "a"], "anna") == "a"
    assert worklist.claim(["a", "b"], "ben") == "b"
    clock.now += ASSIGNED_SECONDS - 1
    worklist.prolong("a", "anna")
    worklist.prolong("a", "ben")  # it is not his
    clock.now += 2
    assert get(worklist).assignee == "anna"
    assert worklist.claim(["a", "b"], "cleo") == "b"
    clock.now += ASSIGNED_SECONDS
    assert get(worklist).assignee == ""
    worklist.prolong("a", "anna")  # too late
    assert worklist.claim(["a"], "cleo") == "a"


def test_what_was_assigned_for_good_stays_so(
    worklist: Worklist, clock: Clock
) -> None:
    worklist.assign("a", "anna")
    assert worklist.claim(["a"], "anna") == "a"
    clock.now += 2 * ASSIGNED_SECONDS
    assert worklist.claim(["a"], "ben") is None
    worklist.assign("a", "")
    assert worklist.claim(["a"], "ben") == "a"


def test_a_submitted_label_ends_the_assignment(
    worklist: Worklist, state: StateFolder
) -> None:
    worklist.claim(["a"], "anna")
    save(state, FINAL, "anna")
    assert get(worklist).assignee == ""


def test_who_was_asked_to_judge_a_correction_does_so_after_another_one(
    worklist: Worklist, state: StateFolder
) -> None:
    worklist.assign("a", "rita", Reading.SECOND)
    for _ in range(2):
        save(state, FINAL, "anna")
        assert get(worklist).second_reader == "rita"
    worklist.set_state("a", CaseState.REJECTED, "rita")
    save(state, FINAL, "anna")
    assert get(worklist).second_reader == ""
    worklist.assign("a", "rita", Reading.SECOND)
    save(state, FINAL, "rita")
    assert get(worklist).second_reader == ""


def test_nobody_reads_their_own_correction_a_second_time(
    worklist: Worklist, state: StateFolder
) -> None:
    save(state, FINAL, "anna")
    assert worklist.claim(["a"], "anna", Reading.SECOND) is None
    assert worklist.claim(["a"], "ben", Reading.SECOND) == "a"
    assert worklist.claim(["a"], "cleo", Reading.SECOND) is None
    assert get(worklist).second_reader == "ben"
    assert get(worklist).assignee == ""
