"""An earlier result is kept where it would come out the same, and only there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from medseg.bundle.hashes import hash_file
from medseg.datasets.cases import Scan
from medseg.events import Event, Notice
from medseg.inference.earlier_results import EarlierResults, find_label_map
from medseg.inference.ledger import Ledger, open_ledger
from medseg.inference.ledger_entry import Entry

SCAN = Scan("a", ())


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    files = {}
    for name in ("a.nii.gz", "a.seg.dcm"):
        (tmp_path / name).write_bytes(name.encode())
        files[name] = hash_file(tmp_path / name)
    with open_ledger(tmp_path) as opened:
        opened.enter(
            Entry(scan="a", state="done", content="c", key="k", files=files)
        )
        yield opened


def test_what_is_unchanged_is_kept(ledger: Ledger) -> None:
    kept = EarlierResults(ledger.folder, ledger.entries).find(SCAN, "c", "k")
    assert kept == ledger.entries["a"]
    assert (
        EarlierResults(ledger.folder, ledger.entries).find(
            Scan("b", ()), "c", "k"
        )
        is None
    )


@pytest.mark.parametrize(
    ("content", "key", "notice"),
    [
        ("c", "other", ""),
        ("other", "k", "a: has changed"),
        ("other", "other", "a: has changed"),
    ],
)
def test_another_scan_or_another_bundle_makes_it_anew(
    ledger: Ledger, content: str, key: str, notice: str
) -> None:
    told: list[Event] = []
    assert (
        EarlierResults(ledger.folder, ledger.entries, [told.append]).find(
            SCAN, content, key
        )
        is None
    )
    assert [
        event.message.startswith(notice)
        for event in told
        if isinstance(event, Notice)
    ] == ([True] if notice else [])


@pytest.mark.parametrize("name", ["a.nii.gz", "a.seg.dcm"])
def test_each_file_must_be_there_and_unchanged(
    ledger: Ledger, name: str
) -> None:
    told: list[Event] = []
    earlier = EarlierResults(ledger.folder, ledger.entries, [told.append])
    (ledger.folder / name).write_bytes(b"someone's own")
    assert earlier.find(SCAN, "c", "k") is None
    assert [event.message for event in told if isinstance(event, Notice)] == [
        f"a: {name} was changed since it was written; the scan is segmented again"
    ]
    (ledger.folder / name).unlink()
    assert earlier.find(SCAN, "c", "k") is None


def test_other_files_that_are_needed_must_be_there(ledger: Ledger) -> None:
    earlier, other = (
        EarlierResults(ledger.folder, ledger.entries),
        ledger.folder / "error_map",
    )
    assert earlier.find(SCAN, "c", "k", [other]) is None
    other.touch()
    assert earlier.find(SCAN, "c", "k", [other]) is not None


def test_a_failed_scan_is_tried_again(ledger: Ledger) -> None:
    entry = ledger.entries["a"].model_copy(update={"state": "failed"})
    ledger.enter(entry)
    assert (
        EarlierResults(ledger.folder, ledger.entries).find(SCAN, "c", "k")
        is None
    )


def test_files_that_a_failed_scan_leaves_behind_are_named(
    ledger: Ledger,
) -> None:
    earlier = EarlierResults(ledger.folder, ledger.entries)
    (ledger.folder / "a.seg.dcm").unlink()
    assert earlier.warn_of_stale(SCAN) == (
        "a.nii.gz is of an earlier run, and may be of another scan",
    )
    (ledger.folder / "a.nii.gz").unlink()
    assert earlier.warn_of_stale(SCAN) == ()
    assert earlier.warn_of_stale(Scan("b", ())) == ()


def test_the_picture_is_drawn_from_a_label_map(ledger: Ledger) -> None:
    assert find_label_map(ledger.entries["a"]) == "a.nii.gz"
    only_seg = Entry(
        scan="a", state="done", files={"a.seg.dcm": "0", "a.stl": "1"}
    )
    assert find_label_map(only_seg) is None


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".png"])
def test_a_label_map_of_each_format_is_one_to_draw(ending: str) -> None:
    files = {"a.seg.dcm": "0", f"a{ending}": "1"}
    entry = Entry.model_construct(files=files)
    assert find_label_map(entry) == f"a{ending}"
