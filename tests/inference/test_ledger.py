"""The ledger survives kills, full disks and other processes, and says nothing it must not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import BusyError, OutputError
from medseg.inference.ledger import open_ledger, read_ledger
from medseg.inference.ledger_entry import (
    Entry,
    Outcomes,
    QualityEntry,
    get_review_order,
)


def entry(scan: str = "a", state: str = "done", **facts) -> Entry:
    return Entry(scan=scan, state=state, **facts)


def test_entries_are_lines_that_come_back(tmp_path: Path) -> None:
    first = entry("a", files={"a.nii.gz": "12ab"}, key="k", volumes_ml={"liver": 1.5},
                  shape=(2, 3, 4), spacing_mm=(1.0, 1.0, 2.5), warnings=("odd – but right",),
                  seconds={"read": 0.1}, bundle="b 0.1.0", device="cpu")  # fmt: skip
    with open_ledger(tmp_path / "new" / "out") as ledger:
        ledger.enter(first)
        ledger.enter(entry("b", "failed", error="two\nlines"))
    lines = (tmp_path / "new/out/ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["scan"] for line in lines] == ["a", "b"]
    entries, damaged = read_ledger(tmp_path / "new/out/ledger.jsonl")
    assert damaged == 0
    assert entries["a"] == first
    assert entries["b"].error == "two\nlines"


def test_the_latest_entry_of_a_scan_counts_and_earlier_ones_stay(
    tmp_path: Path,
) -> None:
    for state in ("failed", "done"):
        with open_ledger(tmp_path) as ledger:
            ledger.enter(entry("a", state))
            assert ledger.entries["a"].state == state
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 2
    with open_ledger(tmp_path) as ledger:
        assert [e.state for e in ledger.entries.values()] == ["done"]


@settings(max_examples=40)
@given(
    cut=st.integers(min_value=0),
    scans=st.lists(st.sampled_from("abcdef"), max_size=8),
)
def test_a_ledger_cut_anywhere_keeps_its_whole_lines_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, cut: int, scans: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    with open_ledger(folder) as ledger:
        for scan in scans:
            ledger.enter(entry(scan, "failed", error="é" * 40))
    path = folder / "ledger.jsonl"
    content = path.read_bytes()
    cut %= len(content) + 1
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    assert list(read_ledger(path)[0]) == list(dict.fromkeys(scans[:whole]))
    with open_ledger(folder) as ledger:
        assert ledger.damaged == 0
        ledger.enter(entry("new"))
    assert [
        json.loads(line)["scan"] for line in path.read_text().splitlines()
    ] == [
        *scans[:whole],
        "new",
    ]


def test_lines_that_say_nothing_are_counted_and_passed_over(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.jsonl"
    good = entry("a").model_dump_json().encode()
    hostile = b'{"scan": "../../etc/passwd", "state": "done"}'
    leading = b'{"scan": "b", "state": "done", "files": {"../b.nii.gz": "0"}}'
    path.write_bytes(
        b"\n".join(
            [b"\0\0\0", good, b"{", b"[]", hostile, leading, b"\xff", b""]
        )
    )
    entries, damaged = read_ledger(path)
    assert list(entries) == ["a"]
    assert damaged == 6


def test_a_long_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(
        entry("a").model_dump_json().encode() + b"\n" + b"x" * 200_000
    )
    with open_ledger(tmp_path) as ledger:
        assert list(ledger.entries) == ["a"]
    assert path.read_bytes().endswith(b"}\n")


def test_what_a_killed_process_left_half_written_is_cleared(
    tmp_path: Path,
) -> None:
    (tmp_path / "previews").mkdir()
    (tmp_path / "other").mkdir()
    for name in (
        ".part-1.nii.gz",
        "previews/.part-2.webp",
        "other/.part-3",
        ".hidden",
        "a.nii.gz",
    ):
        (tmp_path / name).touch()
    with open_ledger(tmp_path, ["previews", "absent"]):
        pass
    left = {
        p.relative_to(tmp_path).as_posix()
        for p in tmp_path.rglob("*")
        if p.is_file()
    }
    assert left == {
        "other/.part-3",
        ".hidden",
        ".lock",
        "a.nii.gz",
        "ledger.jsonl",
    }


def test_two_processes_cannot_work_in_one_folder(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", (
            "import sys, pathlib; from medseg.inference.ledger import open_ledger\n"
            "with open_ledger(pathlib.Path(sys.argv[1])): print('open', flush=True); input()"
        ), str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "open\n"
        (tmp_path / ".part-x").touch()
        with pytest.raises(
            OutputError, match="another process is segmenting into"
        ):
            open_ledger(tmp_path).__enter__()
        assert (tmp_path / ".part-x").exists()  # it may be the other's
    finally:
        holder.kill()
        holder.communicate()
    with open_ledger(tmp_path):  # a killed process frees it
        pass


def test_an_error_inside_frees_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_ledger(tmp_path):
        raise ZeroDivisionError
    with open_ledger(tmp_path):
        pass


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Not a directory"):
        open_ledger(tmp_path / "file" / "out").__enter__()
    with pytest.raises(OutputError, match=r"ledger\.jsonl|File exists"):
        open_ledger(tmp_path / "file").__enter__()


def test_a_full_disk_leaves_the_ledger_as_it_was(small_disk: Path) -> None:
    with open_ledger(small_disk) as ledger:
        ledger.enter(entry("a"))
        ledger.enter(entry("b", "failed", error="x" * 40_000))
        before = (small_disk / "ledger.jsonl").read_bytes()
        with pytest.raises(OutputError, match="the ledger cannot be written"):
            ledger.enter(entry("c", "failed", error="x" * 40_000))
        assert (small_disk / "ledger.jsonl").read_bytes() == before
    assert read_ledger(small_disk / "ledger.jsonl")[1] == 0


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../a",
        "a/b",
        ".hidden",
        "a b",
        "<b>",
        "-x",
        "a\n",
        "a\u202eb",
        "e\u0301",
    ],
)
def test_names_that_lead_elsewhere_are_no_names(name: str) -> None:
    with pytest.raises(ValueError, match="scan"):
        entry(name)


def test_names_may_have_letters_of_every_script(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.enter(entry("肝臓_Müller"))
    entries, damaged = read_ledger(tmp_path / "ledger.jsonl")
    assert list(entries) == ["肝臓_Müller"]
    assert damaged == 0


def test_the_ledger_may_be_read_while_it_is_written(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.enter(entry("a"))
        with (tmp_path / "ledger.jsonl").open("ab") as other:
            other.write(b'{"scan": "b", "st')
        assert list(read_ledger(tmp_path / "ledger.jsonl")[0]) == ["a"]


def test_a_line_is_on_disk_in_one_piece(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        for number in range(3):
            ledger.enter(entry(f"s{number}"))
            content = (tmp_path / "ledger.jsonl").read_bytes()
            assert content.count(b"\n") == number + 1
            assert content.endswith(b"\n")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".lock", "ledger.jsonl"}


def test_an_entry_is_on_disk_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    path = tmp_path / "ledger.jsonl"
    with open_ledger(tmp_path) as ledger:

        def note(handle: int) -> None:
            assert os.fstat(handle).st_ino == path.stat().st_ino
            assert "a" not in ledger.entries
            synced.append(path.read_bytes())

        monkeypatch.setattr(os, "fsync", note)
        ledger.enter(entry("a"))
    assert synced == [path.read_bytes()]
    assert json.loads(synced[0])["scan"] == "a"


def test_a_torn_line_that_was_cut_off_stays_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ledger.jsonl").write_bytes(b'{"scan": "b", "st')
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size)
    )
    with open_ledger(tmp_path):
        assert synced == [0]


@pytest.mark.parametrize("length", [0, 1, 65535, 65536, 65537, 131072, 140_000])
def test_a_torn_line_of_any_length_is_cut_off(
    tmp_path: Path, length: int
) -> None:
    path = tmp_path / "ledger.jsonl"
    whole = entry("a").model_dump_json().encode() + b"\n"
    path.write_bytes(whole + b"x" * length)
    with open_ledger(tmp_path) as ledger:
        assert list(ledger.entries) == ["a"]
    assert path.read_bytes() == whole


def test_failed_scans_come_first_then_the_worst_results() -> None:
    def done(name: str, expected: float | None) -> Entry:
        quality = QualityEntry(
            expected_dice=expected,
            lower_bound=None,
            is_calibrated=False,
            review=False,
        )
        return entry(name, quality=quality)

    ordered = [
        entry("Z", "failed"),
        done("nothing", None),
        done("bad", 0.1),
        done("A", 0.9),
        done("b", 0.9),
        entry("older"),
    ]
    shuffled = [ordered[position] for position in (3, 0, 5, 2, 4, 1)]
    assert sorted(shuffled, key=get_review_order) == ordered


def test_only_results_need_review() -> None:
    quality = QualityEntry(
        expected_dice=0.1, lower_bound=None, is_calibrated=True, review=True
    )
    assert entry("a", quality=quality).needs_review
    assert not entry("a", "failed", quality=quality).needs_review
    assert not entry("a").needs_review
    assert not entry(
        "a", quality=quality.model_copy(update={"review": False})
    ).needs_review


def test_a_line_that_cannot_be_synced_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    with open_ledger(tmp_path) as ledger:
        ledger.enter(entry("a"))
        before = (tmp_path / "ledger.jsonl").read_bytes()
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OutputError, match="the ledger cannot be written"):
            ledger.enter(entry("b"))
        assert (tmp_path / "ledger.jsonl").read_bytes() == before
        assert list(ledger.entries) == ["a"]


@pytest.mark.skipif(
    os.name == "nt", reason="Windows lets nobody remove what is open"
)
@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
def test_nothing_is_entered_where_nobody_reads_it(
    tmp_path: Path, how: str
) -> None:
    out = tmp_path / "out"
    with open_ledger(out) as ledger:
        ledger.enter(entry("a"))
        if how == "removed":
            shutil.rmtree(out)
        elif how == "renamed":
            out.rename(tmp_path / "moved")
        else:
            edited = out / "edited"
            edited.write_bytes(ledger.path.read_bytes() + b"\n")
            edited.replace(ledger.path)
        with pytest.raises(OutputError, match="the ledger"):
            ledger.enter(entry("b"))
        assert list(ledger.entries) == ["a"]


@pytest.mark.skipif(
    os.name == "nt", reason="Windows lets nobody remove what is open"
)
def test_two_that_no_lock_keeps_apart_notice_each_other(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.enter(entry("a"))
        # As where a network drive keeps locks to each machine, or somebody removes them.
        (tmp_path / ".lock").unlink()
        with open_ledger(tmp_path) as other:
            other.enter(entry("b"))
            with pytest.raises(BusyError, match="another process writes"):
                ledger.enter(entry("c"))
            other.enter(entry("d"))
    entries, damaged = read_ledger(tmp_path / "ledger.jsonl")
    assert (list(entries), damaged) == (["a", "b", "d"], 0)


def test_outcomes_cannot_be_without_entries() -> None:
    with pytest.raises(TypeError, match="_list_entries"):
        Outcomes()  # type: ignore[abstract]
