"""A long list is a list, wherever its items lie."""

from __future__ import annotations

import copy
import errno
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import pytest

from medseg._support import spool
from medseg._support.spool import Spool
from medseg.errors import OutputError


@pytest.fixture(autouse=True)
def few_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "FEWEST_ON_DISK", 3)
    monkeypatch.setattr(spool, "BLOCK_ITEMS", 4)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 8, 20])
def test_a_spool_is_like_a_list(count: int) -> None:
    items = [f"\udc80{number}" for number in range(count)]
    made: Spool[str] = Spool()
    assert [made.append(item) for item in items] == list(range(count))
    assert len(made) == count
    assert list(made) == items
    for place in range(-count, count):
        assert made[place] == items[place]
    assert made[1:-1:2] == items[1:-1:2]
    assert list(copy.deepcopy(made)) == items
    with pytest.raises(IndexError):
        made[count]


def test_two_readers_and_a_writer_do_not_disturb_each_other() -> None:
    made: Spool[int] = Spool(range(10))
    first, second = iter(made), iter(made)
    assert [next(first), next(first), next(second)] == [0, 1, 0]
    made.extend(range(10, 20))
    assert list(first) == list(range(2, 20))
    assert list(second) == list(range(1, 20))


def test_several_threads_may_add() -> None:
    made: Spool[int] = Spool()
    with ThreadPoolExecutor(4) as threads:
        places = list(threads.map(made.append, range(500)))
    assert sorted(places) == list(range(500))
    assert [made[place] for place in places] == list(range(500))


def test_a_full_disk_says_which_folder_needs_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    made: Spool[int] = Spool(range(3))
    with pytest.raises(OutputError, match="TMPDIR") as raised:
        made.extend(range(9))
    assert raised.value.source == str(tmp_path / "gone")


class FullOnce:
    """A file on a disk that is full for a moment."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._is_full = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: bytes) -> int:
        if self._is_full:
            self._is_full = False
            self._file.write(content[:5])
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(content)


def test_where_there_was_no_room_nothing_is_lost_or_torn() -> None:
    made: Spool[int] = Spool(range(11))
    file: Any = made._file
    made._file = FullOnce(file)  # type: ignore[assignment]
    with pytest.raises(OutputError, match="make room"):
        made.extend(range(11, 15))
    done = len(made)
    assert list(made) == list(range(done))
    made.extend(range(done, 30))
    assert list(made) == [made[place] for place in range(30)] == [*range(30)]


def test_where_no_folder_can_be_written_the_way_out_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find_none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", find_none)
    with pytest.raises(OutputError, match="name another one in TMPDIR"):
        Spool(range(9))


def test_what_counts_for_more_leaves_the_memory_sooner() -> None:
    items = [(1,), (2, 3), (4,) * 9, (5,), (6,), (7, 8), (9,) * 5]
    made: Spool[tuple[int, ...]] = Spool(items, weigh=len)
    assert made._first == items[:2]
    assert list(made._numbers) == [2, 3]
    assert list(made) == items
    assert [made[place] for place in range(-7, 7)] == items + items
