"""Entries that are kept as text are the entries that were put in."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.inference.entries import Entries, EntryList
from medseg.inference.ledger_entry import Entry, QualityEntry

FULL = Entry(
    scan="Größe",
    state="done",
    files={"Größe.nii.gz": "0" * 64},
    volumes_ml={"liver": 0.1 + 0.2},
    quality=QualityEntry(
        expected_dice=1 / 3,
        lower_bound=None,
        labels={"liver": (1 / 3, None)},
        is_calibrated=True,
        review=True,
        reasons=("too small",),
    ),
    shape=(1, 2, 3),
    spacing_mm=(0.1, 0.2, 0.3),
    seconds={"read": 0.001},
    origin="nnU-Net",
)
FAILED = Entry(scan="b", state="failed", error="x")


def pack(entry: Entry) -> bytes:
    return entry.model_dump_json().encode()


def test_what_comes_out_is_what_went_in() -> None:
    entries = Entries()
    entries.add(FAILED, pack(FAILED))
    entries.add(FULL, pack(FULL))
    later = FAILED.model_copy(update={"state": "done", "error": ""})
    entries.add(later, pack(later))
    assert entries == {"b": later, "Größe": FULL}
    assert list(entries) == ["b", "Größe"]
    assert "c" not in entries
    other = Entries()
    other.take(entries, "Größe")
    assert other == {"Größe": FULL}


def test_a_text_is_kept_once() -> None:
    entries = Entries()
    line = pack(FULL)
    entries.add(FULL, line)
    assert entries.format(FULL) is line
    assert entries.format(FAILED) == pack(FAILED)


def test_a_list_is_like_any_sequence() -> None:
    entries = EntryList()
    assert entries == ()
    assert not entries
    for entry in (FULL, FAILED, FULL):
        entries.append(pack(entry))
    assert entries == (FULL, FAILED, FULL)
    assert entries != [FULL]
    assert entries[-1] == FULL
    assert entries[:2] == [FULL, FAILED]
    assert repr(entries) == repr([FULL, FAILED, FULL])


def test_entries_are_found_by_numbers_of_any_kind() -> None:
    entries = EntryList()
    entries.append(pack(FAILED))
    entries.append(pack(FULL))
    for number in (-1, np.int64(1), np.uint8(1), True):
        assert entries[number] == FULL
    assert entries[np.int64(0) : np.int64(1)] == [FAILED]
    with pytest.raises(TypeError, match="indices must be integers"):
        entries[1.0]  # type: ignore[call-overload]
