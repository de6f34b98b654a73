"""A batch done in shards has the results of one done at once, and a report tells how far it is."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import dicom as made
from support.cli import call
from support.killed_batches import write_scans

import medseg
from medseg.errors import BusyError, DatasetError, MedsegError
from medseg.inference.batch_state import STATE
from medseg.inference.ledger import open_ledger
from medseg.inference.shards import Shard


@pytest.fixture
def bundle(untrained_bundle: Callable[..., Path]) -> Path:
    torch.set_num_threads(1)
    return untrained_bundle()


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    write_scans(folder, 5)
    return folder


def segment(
    bundle: Path, scans: Path, out: Path, shard: str = ""
) -> medseg.Batch:
    return medseg.segment(bundle, scans, out, device="cpu", shard=shard)


def read_results(out: Path) -> dict[str, bytes]:
    files = [*out.glob("*.nii.gz"), out / "volumes.csv"]
    return {file.name: file.read_bytes() for file in files}


def test_shards_have_the_results_of_a_batch_done_at_once(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    (scans / "bad.nii.gz").write_bytes(b"no image")
    segment(bundle, scans, tmp_path / "whole")
    out = tmp_path / "parts"
    first = segment(bundle, scans, out, "1/3")
    assert not (out / "report.html").exists()
    early = medseg.report(out)
    assert not early.is_whole
    assert early.scans is None
    assert early.to_start == (Shard(3, 2), Shard(3, 3))
    others = [segment(bundle, scans, out, f"{each}/3") for each in (2, 3)]
    names = [
        entry.scan for batch in (first, *others) for entry in batch.results
    ]
    assert len(names) == len(set(names)) == 6
    assert read_results(out) != read_results(tmp_path / "whole")  # volumes.csv
    report = medseg.report(out)
    assert read_results(out) == read_results(tmp_path / "whole")
    assert report.is_whole
    assert report.scans == 6
    assert [entry.scan for entry in report.failed] == ["bad"]
    assert "bad" in (out / "report.html").read_text()
    # What any ledger knows done is done, with other shards and with none.
    for shard in ("1/2", "2/2", ""):
        batch = segment(bundle, scans, out, shard)
        states = {entry.state for entry in batch.results if entry.scan != "bad"}
        assert states <= {"skipped"}
    assert len(list(csv.reader((out / "volumes.csv").open()))) == 6


def test_a_shard_that_ended_early_is_named_and_started_again(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for shard in ("1/2", "2/2"):
        segment(bundle, scans, out, shard)
    state = out / "shards" / "2-of-2" / STATE
    killed = json.loads(state.read_text()) | {"ended": ""}
    state.write_text(json.dumps(killed))
    assert medseg.report(out).to_start == (Shard(2, 2),)
    with open_ledger(out, (), Shard(2, 2)):
        assert medseg.report(out).working == 1
        assert medseg.report(out).to_start == ()
        with pytest.raises(BusyError):
            segment(bundle, scans, out)
    segment(bundle, scans, out, "2/2")
    assert medseg.report(out).is_whole


@pytest.mark.parametrize("shard", [None, Shard(2, 1)])
def test_a_batch_that_has_just_begun_is_not_whole(
    tmp_path: Path, shard: Shard | None
) -> None:
    with open_ledger(tmp_path, (), shard):
        assert not medseg.report(tmp_path).is_whole


def test_a_batch_whose_ledger_is_lost_is_not_whole(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for shard in ("1/2", "2/2"):
        segment(bundle, scans, out, shard)
    names = [entry.scan for entry in medseg.report(out).good]
    its = Shard.find(names[0], 2)
    ledger = out / its.folder / "ledger.jsonl"
    # As a file system leaves it after a power cut.
    ledger.write_bytes(bytes(ledger.stat().st_size))
    report = medseg.report(out)
    assert not report.is_whole
    assert report.to_start == (its,)
    assert "no ledger" in " ".join(report.remarks)
    segment(bundle, scans, out, str(its))
    assert medseg.report(out).is_whole
    segment(bundle, scans, tmp_path / "alone")
    (tmp_path / "alone" / "ledger.jsonl").write_bytes(b"")
    assert not medseg.report(tmp_path / "alone").is_whole


def test_shards_that_looked_for_scans_before_others_came_are_started_again(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    segment(bundle, scans, out, "1/2")
    write_scans(scans, 7)
    segment(bundle, scans, out, "2/2")
    report = medseg.report(out)
    assert not report.is_whole
    assert report.to_start == (Shard(2, 1),)
    assert "added" in " ".join(report.remarks)
    segment(bundle, scans, out, "1/2")
    report = medseg.report(out)
    assert (report.is_whole, report.remarks, len(report.good)) == (True, (), 7)
    # Of what is taken away nothing is left to do.
    (scans / "scan_00.nii.gz").unlink()
    segment(bundle, scans, out, "2/2")
    assert medseg.report(out).is_whole


def test_results_of_several_bundles_are_told(
    bundle: Path,
    untrained_bundle: Callable[..., Path],
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    segment(bundle, scans, out, "1/2")
    segment(untrained_bundle("retrained", seed=1), scans, out, "2/2")
    assert call(monkeypatch, "report", out) == 0
    assert "the results are of 2 bundles" in capsys.readouterr().out
    assert "results are of 2 bundles" in (out / "report.html").read_text()
    segment(bundle, scans, out, "2/2")
    assert medseg.report(out).remarks == ()


def test_a_shard_that_ends_during_the_report_is_not_to_be_started(
    bundle: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    segment(bundle, scans, out, "1/1")
    state = out / Shard(1, 1).folder / STATE
    ended = state.read_text()
    content = json.loads(ended) | {"ended": ""}
    state.write_text(json.dumps(content))
    assert medseg.report(out).to_start == (Shard(1, 1),)

    def end(*_: object) -> bool:
        state.write_text(ended)
        return False

    monkeypatch.setattr("medseg.commands.report.is_at_work", end)
    report = medseg.report(out)
    assert (report.to_start, report.is_whole) == ((), True)


def test_the_newest_number_of_shards_counts(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    segment(bundle, scans, out, "1/4")
    for shard in ("1/2", "2/2"):
        segment(bundle, scans, out, shard)
    assert medseg.report(out).is_whole
    segment(bundle, scans, out, "1/4")
    assert medseg.report(out).to_start == (
        Shard(4, 2),
        Shard(4, 3),
        Shard(4, 4),
    )


def test_who_began_last_counts_whatever_clocks_say(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    segment(bundle, scans, out)
    state = json.loads((out / STATE).read_text())
    ahead = {"began": "2031-01-01T00:00:00+00:00", "ended": ""}
    (out / STATE).write_text(json.dumps(state | ahead))
    assert not medseg.report(out).is_whole
    segment(bundle, scans, out, "1/1")
    assert medseg.report(out).is_whole
    (out / STATE).write_text("damaged")
    segment(bundle, scans, out, "1/1")
    segment(bundle, scans, out)
    assert medseg.report(out).is_whole


def test_a_failure_whose_scan_is_gone_is_closed_by_its_shard_alone(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    bad = scans / "bad.nii.gz"
    bad.write_bytes(b"no image")
    its = "1/2" if Shard(2, 1).holds("bad") else "2/2"
    segment(bundle, scans, out, its)
    bad.unlink()
    segment(bundle, scans, out, "2/2" if its == "1/2" else "1/2")
    assert [entry.scan for entry in medseg.report(out).failed] == ["bad"]
    segment(bundle, scans, out, its)
    assert medseg.report(out).failed == ()


def test_the_command_says_what_is_left_to_do(
    bundle: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    start = ("segment", bundle, scans, out, "--device", "cpu", "--shard")
    assert call(monkeypatch, *start, "1/2") == 0
    assert "medseg report" in capsys.readouterr().out
    assert call(monkeypatch, "report", out) == 1
    assert "to be started (again): --shard 2/2" in capsys.readouterr().out
    # As where a variable is not set.
    assert call(monkeypatch, *start, "") == 2
    assert "it is empty" in capsys.readouterr().err
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    monkeypatch.setenv("JOB_COMPLETIONS", "2")
    assert call(monkeypatch, *start, "auto") == 0
    capsys.readouterr()
    assert call(monkeypatch, "report", out, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["is_whole"]
    assert printed["scans"] == len(printed["results"]) == 5


def test_a_report_of_an_older_folder_needs_no_state(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    segment(bundle, scans, out)
    volumes = (out / "volumes.csv").read_text()
    (out / STATE).unlink()
    report = medseg.report(out)
    assert report.is_whole
    assert (out / "volumes.csv").read_text().splitlines()[1:] == (
        volumes.splitlines()[1:]
    )
    (out / "ledger.jsonl").write_text("?\n")
    assert not medseg.report(out).is_whole


def test_no_folder_of_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no folder of results"):
        medseg.report(tmp_path)


def test_a_wrong_shard_makes_nothing(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    with pytest.raises(MedsegError, match="numbered from 1 to 4"):
        segment(bundle, scans, tmp_path / "out", "5/4")
    assert not (tmp_path / "out").exists()


def test_without_shards_a_listed_folder_may_be_called_as_an_image(
    bundle: Path, tmp_path: Path
) -> None:
    pixels = made.voxels((24, 20, 6))
    made.save(tmp_path / "ct.mha", made.series(pixels, Modality="CT"))
    table = tmp_path / "scans.csv"
    table.write_text("scan\nct.mha\n")
    (entry,) = segment(bundle, table, tmp_path / "out").results
    assert entry.state == "done"


def test_a_list_in_parquet_is_shared_by_shards_and_volumes_come_as_parquet(
    bundle: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    files = [str(file) for file in sorted(scans.glob("*.nii.gz"))]
    table = tmp_path / "scans.parquet"
    parquet.write_table(pyarrow.table({"scan": files}), table)
    out = tmp_path / "out"
    for shard in ("1/2", "2/2"):
        segment(bundle, table, out, shard)
    assert call(monkeypatch, "report", out, "--parquet") == 0
    rows = parquet.read_table(out / "volumes.parquet").to_pylist()
    assert [f"{row['scan']}.nii.gz" for row in rows] == [
        Path(file).name for file in files
    ]
