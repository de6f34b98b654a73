"""What a job of every night needs of ``segment``: what is skipped, who may know, what is said."""

from __future__ import annotations

import csv
import os
import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import dicom as made
from support.cli import call
from support.killed_batches import write_scans

from medseg.commands.segment import segment
from medseg.errors import BusyError, DatasetError, OutputError
from medseg.inference.ledger import Ledger, open_ledger, read_ledger
from medseg.inference.ledger_entry import Entry

Run = Callable[..., int]
CT = {"channels": [{"name": "CT", "modality": "CT"}]}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"


@pytest.fixture
def bundle(untrained_bundle: Callable[..., Path]) -> Path:
    torch.set_num_threads(1)
    return untrained_bundle(**CT)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """One CT, one MR and one NIfTI file."""
    folder = tmp_path / "inbox"
    made.save(folder / "a", made.series(name="a", Modality="CT"))
    made.save(folder / "b", made.series(name="b", Modality="MR"))
    write_scans(folder, 1)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(
    bundle: Path, inbox: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    def start(*options: object) -> int:
        return call(
            monkeypatch,
            *("segment", bundle, inbox, out, "--device", "cpu"),
            *options,
        )

    return start


def test_other_modalities_are_skipped_and_told_everywhere(
    run: Run, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 1
    assert "see --modality" in capsys.readouterr().out
    assert run("--modality", "ct,PT", "--modality", "US") == 0
    printed = capsys.readouterr()
    assert "2 of 2 scans segmented" in printed.out
    assert "skipped: 1 scan: is MR by its DICOM header" in printed.out
    assert "1 scan states no modality" in printed.err
    entries, _ = read_ledger(out / "ledger.jsonl")
    assert sorted(entry.state for entry in entries.values()) == [
        *("done", "done", "skipped")
    ]
    report = (out / "report.html").read_text()
    assert "<dt>skipped</dt><dd>1</dd>" in report
    assert "<dt>failed</dt><dd>0</dd>" in report
    assert len((out / "volumes.csv").read_text().splitlines()) == 3
    size = (out / "ledger.jsonl").stat().st_size
    assert run("--modality", "ct,PT", "--modality", "US") == 0
    assert (out / "ledger.jsonl").stat().st_size == size


def test_a_result_outlives_a_call_that_skips_its_scan(
    bundle: Path, inbox: Path, out: Path
) -> None:
    before = segment(bundle, inbox / "a", out)
    batch = segment(
        bundle, inbox, out, modalities=["MR"], allow_empty=True, report=False
    )
    (skipped,) = batch.skipped
    assert skipped.scan == before.results[0].scan
    entries, _ = read_ledger(out / "ledger.jsonl")
    assert entries[skipped.scan].state == "done"


def test_names_do_not_depend_on_what_is_skipped(
    bundle: Path, inbox: Path, out: Path
) -> None:
    every = {entry.scan for entry in segment(bundle, inbox, out).results}
    batch = segment(bundle, inbox, out, modalities=["CT"])
    assert {entry.scan for entry in batch.results} == every


def test_nothing_to_do_is_no_error_where_that_is_allowed(
    bundle: Path, inbox: Path, out: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert segment(bundle, empty, out, allow_empty=True).results == ()
    assert (out / "report.html").is_file()
    with pytest.raises(DatasetError, match="no scan was found"):
        segment(bundle, empty, out)
    with pytest.raises(DatasetError, match="no such file or folder"):
        segment(bundle, tmp_path / "unmounted", out, allow_empty=True)
    with pytest.raises(DatasetError, match="none of 1 scans is of"):
        segment(bundle, inbox / "b", out, modalities=["CT"])
    batch = segment(
        bundle, inbox / "b", out, modalities=["CT"], allow_empty=True
    )
    assert (len(batch.skipped), batch.failed) == (1, ())
    with pytest.raises(DatasetError, match="one of DICOM's codes"):
        segment(bundle, inbox, out, modalities=["C T"])
    with pytest.raises(OutputError, match="holds scans"):
        segment(bundle, empty, empty, allow_empty=True)


def test_a_quiet_call_says_nothing_unless_something_failed(
    run: Run, inbox: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--quiet", "--modality", "CT")
    assert run(*options) == 0
    assert capfd.readouterr() == ("", "")
    torn = inbox / "torn.nii.gz"
    whole = (inbox / "scan_00.nii.gz").read_bytes()
    torn.write_bytes(whole[:100])
    assert run(*options) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    summary, failure = printed.err.splitlines()
    assert summary.startswith("2 of 3 scans segmented")
    assert failure.startswith("  failed: torn.nii.gz: the file cannot be read")
    # Still being written last night, it is whole tonight.
    torn.write_bytes(whole)
    assert run(*options) == 0


def test_a_log_has_a_line_for_each_scan_and_no_patient(
    run: Run, inbox: Path, tmp_path: Path
) -> None:
    log = tmp_path / "logs/night.log"
    assert run("--log", log) == 1
    lines = log.read_text().splitlines()
    assert all(re.match(rf"{TIME} segment\[\d+\] ", line) for line in lines)
    said = [line.split(maxsplit=2)[2] for line in lines]
    assert said[0].startswith("begins: 3 scans, bundle made_up")
    assert said[-1] == "ends with exit code 1: 2 of 3 scans segmented"
    assert any(re.match(r"scan_00 done in \d", line) for line in said)
    assert any("failed: is MR by its DICOM" in line for line in said)
    assert len(said) == 5
    log.rename(tmp_path / "night.log.1")
    assert run("--log", log) == 1
    text = log.read_text()
    assert "scan_00 skipped: unchanged, and its result is kept" in text
    assert "Secret" not in text
    assert str(inbox) not in text


def test_a_log_says_why_a_call_ended(
    run: Run, out: Path, tmp_path: Path
) -> None:
    log = tmp_path / "night.log"
    with open_ledger(out):
        assert run("--log", log) == 75
    assert "ends with exit code 75: another process is segm" in log.read_text()
    assert run("--log", tmp_path) == 2


def test_a_folder_that_is_in_use_is_an_error_of_its_own(
    bundle: Path, inbox: Path, out: Path
) -> None:
    with open_ledger(out), pytest.raises(BusyError):
        segment(bundle, inbox, out)


def test_the_table_of_sources_leads_back_and_is_private(
    run: Run, inbox: Path, out: Path, tmp_path: Path
) -> None:
    table = tmp_path / "private/sources.csv"
    assert run("--sources", table, "--modality", "CT") == 0
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    made.save(inbox / "c", made.series(name="c"))
    (inbox / "scan_00.nii.gz").unlink()
    table.chmod(0o644)
    assert run("--sources", table, "--modality", "CT") == 0
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    with table.open(newline="") as text:
        rows = list(csv.DictReader(text))
    paths = {row["path"] for row in rows}
    assert paths == {str(inbox / name) for name in ("a", "c", "scan_00.nii.gz")}
    of_series = next(row for row in rows if row["path"] == str(inbox / "a"))
    shown = made.series(name="a")[0]
    assert of_series["StudyInstanceUID"] == shown.StudyInstanceUID
    assert of_series["SeriesInstanceUID"] == shown.SeriesInstanceUID
    assert (out / f"{of_series['name']}.nii.gz").is_file()
    for file in out.rglob("*"):
        if file.is_file():
            assert str(inbox).encode() not in file.read_bytes()


def test_the_table_of_sources_lies_apart_and_replaces_nothing(
    bundle: Path, inbox: Path, out: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="outside of the folder of results"):
        segment(bundle, inbox, out, sources=out / "sources.csv")
    other = tmp_path / "list.csv"
    other.write_text("name,scan\n")
    with pytest.raises(OutputError, match="is no table of sources"):
        segment(bundle, inbox, out, sources=other)
    assert other.read_text() == "name,scan\n"
    assert not out.exists()


def test_failures_whose_files_are_gone_are_not_reported_for_ever(
    bundle: Path, inbox: Path, out: Path, tmp_path: Path
) -> None:
    torn = made.save(inbox / "t", made.series(name="t"))
    file = sorted(torn.iterdir())[0]
    file.write_bytes(file.read_bytes()[:-20])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "bad.nii.gz").write_bytes(b"")
    assert len(segment(bundle, elsewhere, out).failed) == 1
    assert len(segment(bundle, inbox, out, modalities=["CT"]).failed) == 1
    for file in torn.iterdir():
        file.unlink()
    (inbox / "scan_00.nii.gz").unlink()
    batch = segment(bundle, inbox, out, modalities=["CT"])
    assert (batch.failed, batch.gone) == ((), 1)
    entries, _ = read_ledger(out / "ledger.jsonl")
    states = [entry.state for entry in entries.values()]
    assert sorted(states) == ["done", "done", "failed", "skipped", "skipped"]
    assert "not there any more" in (out / "report.html").read_text()


def test_threads_are_limited_for_a_call(
    bundle: Path, inbox: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = set()
    compute = torch.nn.Conv3d.forward

    def watch(self: torch.nn.Conv3d, values: torch.Tensor) -> torch.Tensor:
        counts.add(torch.get_num_threads())
        return compute(self, values)

    monkeypatch.setattr(torch.nn.Conv3d, "forward", watch)
    segment(bundle, inbox / "a", out, threads=3, device="cpu")
    assert counts == {3}
    assert torch.get_num_threads() == 1


def test_sigterm_ends_a_call_as_ctrl_c_does_and_the_next_goes_on(
    run: Run,
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    enter = Ledger.enter
    entered: list[Entry] = []

    def enter_and_stop(self: Ledger, entry: Entry) -> None:
        enter(self, entry)
        entered.append(entry)
        # A second one would end this process, too, when the call has given the signal back.
        if len(entered) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    options = ("--modality", "CT", "--log", tmp_path / "night.log")
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "enter", enter_and_stop)
        assert run(*options) == 130
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert "Run the same command again to resume" in capsys.readouterr().err
    assert "exit code 130: interrupted" in (tmp_path / "night.log").read_text()
    assert not list(out.rglob(".part-*"))
    assert run(*options) == 0
