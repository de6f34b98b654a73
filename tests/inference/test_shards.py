"""A scan belongs to one shard, and two processes never do the same scans at once."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.errors import BusyError, MedsegError, OutputError
from medseg.inference.ledger import open_ledger, read_ledgers
from medseg.inference.ledger_entry import Entry
from medseg.inference.shards import Shard, is_at_work, list_shards, parse_shard


@given(names=st.sets(st.text(min_size=1), max_size=40), count=st.integers(1, 9))
def test_each_scan_belongs_to_one_shard_whatever_the_others_are(
    names: set[str], count: int
) -> None:
    shards = [Shard(count, number) for number in range(1, count + 1)]
    for name in names:
        assert [shard.holds(name) for shard in shards].count(True) == 1


def test_shards_are_of_about_the_same_size() -> None:
    shard = Shard(4, 3)
    held = [shard.holds(f"case_{number:05}") for number in range(4000)]
    assert 900 < sum(held) < 1100


def slurm(number: int, first: int, last: int, count: int) -> Mapping[str, str]:
    numbers = {"ID": number, "MIN": first, "MAX": last, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(n) for name, n in numbers.items()}


@pytest.mark.parametrize(
    ("text", "variables", "shard"),
    [
        ("1/1", {}, Shard(1, 1)),
        (" 3/8 ", {}, Shard(8, 3)),
        ("auto", slurm(1, 1, 8, 8), Shard(8, 1)),
        ("auto", slurm(7, 0, 7, 8), Shard(8, 8)),
        ("auto", slurm(6, 2, 10, 5), Shard(5, 3)),  # --array=2-10:2
        ("auto", slurm(5, 5, 5, 1), Shard(1, 1)),
        (
            "auto",
            {"JOB_COMPLETION_INDEX": "3", "JOB_COMPLETIONS": "4"},
            Shard(4, 4),
        ),
        (
            "auto",
            {"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "2"},
            Shard(2, 1),
        ),
    ],
)
def test_a_shard_is_given_or_taken_from_a_scheduler(
    text: str, variables: Mapping[str, str], shard: Shard
) -> None:
    assert parse_shard(text, variables) == shard


@pytest.mark.parametrize(
    ("text", "variables", "message"),
    [
        ("0/4", {}, "numbered from 1 to 4"),
        ("5/4", {}, "numbered from 1 to 4"),
        ("1/0", {}, "1 to 100000"),
        ("1/999999", {}, "1 to 100000"),
        ("-1/4", {}, "is written I/N"),
        ("1 of 4", {}, "is written I/N"),
        ("²/4", {}, "is written I/N"),
        ("auto", {}, "no scheduler says"),
        ("auto", {"JOB_COMPLETION_INDEX": "3"}, "JOB_COMPLETIONS is needed"),
        pytest.param(
            "auto",
            {"JOB_COMPLETION_INDEX": "9" * 5000},
            "holds no number",
            id="long",
        ),
        ("auto", slurm(7, 0, 7, 3), "have gaps"),  # --array=0,3,7
        ("auto", slurm(3, 0, 8, 3), "have gaps"),
    ],
)
def test_what_is_no_shard_is_refused_with_what_to_write(
    text: str, variables: Mapping[str, str], message: str
) -> None:
    with pytest.raises(MedsegError, match=message):
        parse_shard(text, variables)


def test_shards_of_one_number_work_side_by_side(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        for number in (1, 2, 3):
            shard = Shard(3, number)
            ledger = stack.enter_context(open_ledger(tmp_path, (), shard))
            ledger.enter(Entry(scan=f"scan{number}", state="done"))
        entries, _ = read_ledgers(tmp_path)
    assert list(entries) == ["scan1", "scan2", "scan3"]
    for none in ("0-of-0", "4-of-3", "0-of-3", "1-of-x"):
        (tmp_path / "shards" / none).mkdir()
    assert list_shards(tmp_path) == [Shard(3, 1), Shard(3, 2), Shard(3, 3)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Shard(3, 1), Shard(3, 1)),
        (Shard(3, 1), Shard(4, 2)),
        (Shard(3, 1), None),
        (None, Shard(3, 1)),
    ],
)
def test_nobody_else_works_on_the_same_scans(
    first: Shard | None, second: Shard | None, tmp_path: Path
) -> None:
    with open_ledger(tmp_path, (), first):
        refused = open_ledger(tmp_path, (), second)
        with pytest.raises(BusyError):
            refused.__enter__()
    with open_ledger(tmp_path, (), second):
        pass


def find_own(shard: Shard, count: int) -> list[str]:
    names = (f"scan{number}" for number in range(1000))
    own = [name for name in names if shard.holds(name)]
    return own[:count]


def test_a_shard_knows_of_its_scans_what_any_ledger_knows(
    tmp_path: Path,
) -> None:
    first, second = find_own(Shard(3, 2), 2)
    (other,) = find_own(Shard(3, 1), 1)
    with open_ledger(tmp_path) as ledger:
        ledger.enter(Entry(scan=first, state="failed", finished="2026-01-01"))
        ledger.enter(Entry(scan=other, state="done", finished="2026-01-01"))
    with open_ledger(tmp_path, (), Shard(2, 1)) as ledger:
        ledger.enter(Entry(scan=first, state="done", finished="2026-01-02"))
        ledger.enter(Entry(scan=second, state="done", finished="2026-01-02"))
    with open_ledger(tmp_path, (), Shard(3, 2)) as ledger:
        states = {name: each.state for name, each in ledger.entries.items()}
        ledger.enter(Entry(scan=first, state="failed", finished="2026-01-03"))
    assert states == {first: "done", second: "done"}
    with open_ledger(tmp_path, (), Shard(3, 2)) as ledger:
        assert ledger.entries[first].state == "failed"
    # Of as many shards, only who asks for the names of others reads their ledgers.
    with open_ledger(tmp_path, (), Shard(3, 1)) as ledger:
        assert list(ledger.entries) == [other]
    with open_ledger(tmp_path, (), Shard(3, 1), {first}) as ledger:
        assert ledger.entries[first].state == "failed"


def test_lines_of_a_shard_that_cannot_be_read_are_counted(
    tmp_path: Path,
) -> None:
    (own,) = find_own(Shard(2, 1), 1)
    (other,) = find_own(Shard(2, 2), 1)
    lines = [f'{{"scan":"{name}","state":"?"}}\n' for name in (own, other)]
    (tmp_path / "ledger.jsonl").write_text("".join([*lines, "?\n"]))
    with open_ledger(tmp_path, (), Shard(2, 1)) as ledger:
        assert ledger.damaged == 2


def test_a_good_result_counts_more_than_a_failure_of_the_same_second(
    tmp_path: Path,
) -> None:
    for number, state in enumerate(["failed", "done", "failed"], 1):
        with open_ledger(tmp_path, (), Shard(3, number)) as ledger:
            entry = Entry.model_validate(
                {"scan": "a", "state": state, "finished": "2026-01-01"}
            )
            ledger.enter(entry)
    entries, _ = read_ledgers(tmp_path)
    assert entries["a"].state == "done"


def test_a_lock_that_cannot_be_read_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    with open_ledger(tmp_path, (), Shard(2, 1)):
        pass

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OutputError, match="cannot be seen"):
        is_at_work(tmp_path, Shard(2, 1))


def test_what_is_done_again_counts_whatever_clocks_say(tmp_path: Path) -> None:
    ahead = Entry(
        scan="a", state="failed", finished="2031-01-01T00:00:00+00:00"
    )
    with open_ledger(tmp_path) as ledger:
        ledger.enter(ahead)
    again = Entry(scan="a", state="done", finished="2026-01-01T00:00:00+00:00")
    with open_ledger(tmp_path, (), Shard(1, 1)) as ledger:
        entered = ledger.enter(again)
    assert entered.finished == "2031-01-01T00:00:01+00:00"
    with open_ledger(tmp_path) as ledger:
        assert ledger.entries["a"] == entered
        # One of the same second that a good one was before.
        ledger.enter(entered.model_copy(update={"state": "failed"}))
    assert read_ledgers(tmp_path)[0]["a"].state == "failed"


def test_a_shard_leaves_what_another_is_writing(tmp_path: Path) -> None:
    part = tmp_path / ".part-abc.nii.gz"
    part.write_bytes(b"half")
    own = tmp_path / Shard(2, 1).folder / ".part-state"
    own.parent.mkdir(parents=True)
    own.touch()
    with open_ledger(tmp_path, (), Shard(2, 1)):
        pass
    assert part.exists()
    assert not own.exists()
    with open_ledger(tmp_path):
        pass
    assert not part.exists()
