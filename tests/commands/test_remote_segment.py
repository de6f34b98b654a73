"""Scans and results in an object store are those of a folder."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import dicom as made
from support.cli import call
from support.killed_batches import write_scans
from support.object_stores import SECRET, Store, open_store

import medseg
from medseg._support import store_errors
from medseg.commands import remote_batch, remote_segment
from medseg.commands.remote_batch import RemoteFolder
from medseg.errors import DatasetError, MedsegError, OutputError
from medseg.events import Event, Notice, ScanDone
from medseg.inference import devices_of_batch
from medseg.inference.bundle_prediction import BundlePrediction
from medseg.inference.bundle_predictor import BundlePredictor
from medseg.io import write_labels
from medseg.testing import make_phantom
from medseg.volume import Volume

# moto takes seconds to import.
pytestmark = pytest.mark.slow

IN, OUT = "s3://scans/in", "s3://scans/out"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with open_store(monkeypatch) as opened:
        yield opened


@pytest.fixture
def bundle(untrained_bundle: Callable[..., Path]) -> Path:
    torch.set_num_threads(1)
    return untrained_bundle()


def put_folder(store: Store, folder: Path, prefix: str) -> None:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            place = file.relative_to(folder).as_posix()
            store.put(f"{prefix}/{place}", file.read_bytes())


def list_maps(
    files: dict[str, bytes], prefix: str = "out/"
) -> dict[str, bytes]:
    return {
        name.removeprefix(prefix): content
        for name, content in files.items()
        if name.startswith(prefix) and name.endswith(".nii.gz")
    }


def read_folder(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.glob("*.nii.gz")}


def test_a_store_that_fails_now_and_then_has_the_results_of_a_folder(
    store: Store,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scans = write_scans(tmp_path / "scans", 5)
    (scans / "deep").mkdir()
    (scans / "scan_04.nii.gz").rename(scans / "deep" / "scan_04.nii.gz")
    (scans / "bad.nii.gz").write_bytes(b"no image")
    medseg.segment(bundle, scans, tmp_path / "whole", device="cpu")
    put_folder(store, scans, "in")
    store.put("in/readme.txt", b"text")
    monkeypatch.setattr(remote_segment, "ROUND_SCANS", 2)
    loaded = []
    load = devices_of_batch._load

    def count(*given: Any) -> Any:
        loaded.append(given)
        return load(*given)

    monkeypatch.setattr(devices_of_batch, "_load", count)
    store.faults.share = 0.2
    batch = medseg.segment(bundle, IN, OUT, device="cpu")
    assert store.faults.count > 5
    # Three rounds share what one has loaded.
    assert len(loaded) == 1
    assert [entry.scan for entry in batch.failed] == ["bad"]
    found = store.read()
    assert list_maps(found) == read_folder(tmp_path / "whole")
    assert (
        found["out/volumes.csv"]
        == (tmp_path / "whole/volumes.csv").read_bytes()
    )
    assert found["out/report.html"].count(b"data:image/webp") == 5
    assert medseg.report(OUT).is_whole
    # Again: nothing is done twice, and what failed is tried.
    again = medseg.segment(bundle, IN, OUT, device="cpu")
    states = {entry.scan: entry.state for entry in again.results}
    assert states.pop("bad") == "failed"
    assert set(states.values()) == {"skipped"}
    assert list_maps(store.read()) == read_folder(tmp_path / "whole")


def test_an_object_that_fails_for_good_fails_its_scan_alone(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    put_folder(store, write_scans(tmp_path / "scans", 3), "in")
    store.faults.broken = "scan_01"
    batch = medseg.segment(bundle, IN, OUT, device="cpu")
    states = {entry.scan: entry.state for entry in batch.results}
    assert states.pop("scan_01") == "failed"
    assert states == {"scan_00": "done", "scan_02": "done"}
    assert "cannot be read" in batch.full_errors["scan_01"]
    report = medseg.report(OUT)
    assert [entry.scan for entry in report.failed] == ["scan_01"]
    assert "s3://" not in report.failed[0].error
    assert report.out == OUT
    # What names the results and the ledger can be opened.
    assert batch.out == OUT
    store.faults.broken = ""
    ledger = str(batch.ledger).removeprefix("s3://scans/")
    assert store.read()[ledger].count(b"\n") == 3
    again = medseg.segment(bundle, IN, OUT, device="cpu")
    states = {entry.scan: entry.state for entry in again.results}
    assert states.pop("scan_01") == "done"
    assert set(states.values()) == {"skipped"}


def test_an_earlier_result_that_cannot_be_read_is_made_again(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    put_folder(store, write_scans(tmp_path / "scans", 3), "in")
    medseg.segment(bundle, IN, OUT, device="cpu")
    before = list_maps(store.read())
    store.faults.unreadable = "out/scan_01.nii.gz"
    told: list[str] = []

    def tell(event: Event) -> None:
        if isinstance(event, Notice):
            told.append(event.message)

    batch = medseg.segment(bundle, IN, OUT, device="cpu", listeners=[tell])
    states = {entry.scan: entry.state for entry in batch.results}
    assert states.pop("scan_01") == "done"
    assert set(states.values()) == {"skipped"}
    assert any("scan_01" in text for text in told)
    assert list_maps(store.read()) == before
    store.faults.broken = "out/scan_01.nii.gz"
    batch = medseg.segment(bundle, IN, OUT, device="cpu")
    (failed,) = batch.failed
    assert failed.scan == "scan_01"
    assert "is of an earlier run" in failed.warnings[0]
    assert len(batch.results) == 3
    store.faults.broken = ""
    batch = medseg.segment(bundle, IN, OUT, device="cpu")
    states = {entry.scan: entry.state for entry in batch.results}
    assert states.pop("scan_01") == "done"
    assert set(states.values()) == {"skipped"}


@pytest.mark.parametrize("is_remote", [True, False])
def test_a_scan_that_cannot_be_fetched_tells_of_its_earlier_label_map(
    store: Store, bundle: Path, tmp_path: Path, is_remote: bool
) -> None:
    put_folder(store, write_scans(tmp_path / "scans", 2), "in")
    out = OUT if is_remote else tmp_path / "out"
    medseg.segment(bundle, IN, out, device="cpu")
    store.faults.unreadable = "in/scan_01"
    batch = medseg.segment(bundle, IN, out, device="cpu")
    (failed,) = batch.failed
    assert failed.scan == "scan_01"
    assert "scan_01.nii.gz is of an earlier run" in failed.warnings[0]


def test_objects_with_names_that_no_folder_has_are_segmented(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    scans = write_scans(tmp_path / "scans", 1)
    content = (scans / "scan_00.nii.gz").read_bytes()
    for name in ("in/a//b.nii.gz", "in//c.nii.gz", "in/d\\e.nii.gz"):
        store.put(name, content)
    store.put("in/.hidden/f.nii.gz", content)
    batch = medseg.segment(bundle, IN, tmp_path / "out", device="cpu")
    names = {entry.scan: entry.state for entry in batch.results}
    assert names == {"a___b": "done", "__c": "done", "d_e": "done"}


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_of_200_scans_none_is_lost_to_a_store_that_fails(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    scans = write_scans(tmp_path / "scans", 200)
    medseg.segment(bundle, scans, tmp_path / "whole", device="cpu")
    put_folder(store, scans, "in")
    store.faults.share = 0.1
    batch = medseg.segment(bundle, IN, OUT, device="cpu")
    assert store.faults.count > 200
    assert len(batch.good) == 200
    assert list_maps(store.read()) == read_folder(tmp_path / "whole")
    assert medseg.report(OUT).is_whole


def test_shards_share_a_store(
    store: Store, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_folder(store, write_scans(tmp_path / "scans", 5), "in")
    first = medseg.segment(bundle, IN, OUT, device="cpu", shard="1/2")
    report = medseg.report(OUT)
    assert not report.is_whole
    assert len(report.entries) == len(first.results)
    assert call(monkeypatch, "segment", bundle, IN, OUT, "--shard", "2/2") == 0
    assert call(monkeypatch, "report", OUT) == 0
    names = {f"scan_{number:02}.nii.gz" for number in range(5)}
    assert list_maps(store.read()).keys() == names


def test_a_table_lists_dicom_and_files_here(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    pixels = made.voxels((24, 20, 6))
    made.save(tmp_path / "ct", made.series(pixels, Modality="CT"))
    put_folder(store, tmp_path / "ct", "in/ct")
    scans = write_scans(tmp_path / "scans", 1)
    here = scans / "scan_00.nii.gz"
    table = f"name,scan\nseries,ct\nhere,{here}\nmissing,none\n"
    store.put("in/list.csv", table.encode())
    batch = medseg.segment(
        bundle, f"{IN}/list.csv", tmp_path / "out", device="cpu"
    )
    states = {entry.scan: entry.state for entry in batch.results}
    assert states == {"series": "done", "here": "done", "missing": "failed"}
    assert {"series.nii.gz", "here.nii.gz"} == read_folder(
        tmp_path / "out"
    ).keys()
    assert (tmp_path / "out/report.html").is_file()


def test_label_maps_beside_scans_are_left_out_as_in_a_folder(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    scans = write_scans(tmp_path / "scans", 1)
    volume, mask = make_phantom(0, (20, 18, 16))
    write_labels(scans / "scan_00_seg.nii.gz", mask, volume)
    put_folder(store, scans, "in")
    batch = medseg.segment(bundle, IN, OUT, device="cpu")
    assert [entry.scan for entry in batch.results] == ["scan_00"]


def test_results_of_others_are_not_replaced(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    put_folder(store, write_scans(tmp_path / "scans", 1), "in")
    store.put("out/mine.txt", b"x")
    with pytest.raises(OutputError, match="no result of medseg"):
        medseg.segment(bundle, IN, OUT, device="cpu")
    with pytest.raises(DatasetError, match="no folder of results"):
        medseg.report(OUT)
    assert store.read().keys() == {"in/scan_00.nii.gz", "out/mine.txt"}


def test_what_is_not_allowed_is_said_without_a_secret(
    store: Store,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="medseg")
    monkeypatch.setattr(store_errors, "WAITS", (0.01,))
    store.faults.share = 1.0
    with pytest.raises(MedsegError, match="further tries") as caught:
        medseg.segment(bundle, IN, OUT, device="cpu")
    told = [str(caught.value), caught.value.detail]
    told += [one.getMessage() for one in caplog.records if one.name == "medseg"]
    assert SECRET not in json.dumps(told)


def test_two_scans_of_one_name_are_refused(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    scans = write_scans(tmp_path / "scans", 1)
    content = (scans / "scan_00.nii.gz").read_bytes()
    store.put("in/a/b.nii.gz", content)
    store.put("in/a_b.nii.gz", content)
    with pytest.raises(DatasetError, match="results of one name"):
        medseg.segment(bundle, IN, OUT, device="cpu")


def test_a_bug_in_one_scan_keeps_no_other_from_being_done(
    store: Store,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_folder(store, write_scans(tmp_path / "scans", 7), "in")
    monkeypatch.setattr(remote_segment, "ROUND_SCANS", 3)
    # It is fetched together with the scan that meets the bug.
    store.faults.broken = "scan_03"
    predict = BundlePredictor.predict
    seen: list[Volume] = []

    def fail_fourth(self: BundlePredictor, volume: Volume) -> BundlePrediction:
        seen.append(volume)
        if len(seen) == 4:
            raise ValueError("a bug")
        return predict(self, volume)

    monkeypatch.setattr(BundlePredictor, "predict", fail_fourth)
    with pytest.raises(ValueError, match="a bug"):
        medseg.segment(bundle, IN, OUT, device="cpu")
    store.faults.broken = ""
    # One of them comes after it in the same round.
    names = {f"scan_{number:02}.nii.gz" for number in (0, 1, 2, 5, 6)}
    assert list_maps(store.read()).keys() == names
    states = {entry.scan: entry.state for entry in medseg.report(OUT).entries}
    assert states["scan_03"] == "failed"
    assert states["scan_04"] == "error"


def test_nothing_lies_here_when_it_is_over(
    store: Store,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_folder(store, write_scans(tmp_path / "scans", 2), "in")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with contextlib.suppress(MedsegError):
        medseg.segment(bundle, IN, OUT, device="cpu")
    assert not list((tmp_path / "tmp").glob("medseg*"))


def test_a_table_of_this_machine_lists_what_is_in_a_store(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    put_folder(store, write_scans(tmp_path / "scans", 1), "in")
    table = tmp_path / "list.csv"
    table.write_text(f"name,scan\na,{IN}/scan_00.nii.gz\n")
    batch = medseg.segment(bundle, table, tmp_path / "out", device="cpu")
    assert [entry.state for entry in batch.results] == ["done"]
    assert read_folder(tmp_path / "out").keys() == {"a.nii.gz"}


def test_a_folder_of_this_machine_needs_a_table_for_results_in_a_store(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    scans = write_scans(tmp_path / "scans", 1)
    with pytest.raises(DatasetError, match="need a table"):
        medseg.segment(bundle, scans, OUT, device="cpu")
    assert not store.read()


def test_of_a_call_that_ends_early_all_that_was_done_is_in_the_store(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    put_folder(store, write_scans(tmp_path / "scans", 4), "in")
    done = []

    def stop(event: Event) -> None:
        if isinstance(event, ScanDone):
            done.append(event.name)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        medseg.segment(bundle, IN, OUT, device="cpu", listeners=[stop])
    good = {entry.scan for entry in medseg.report(OUT).good}
    assert set(done) <= good
    maps = list_maps(store.read())
    assert maps.keys() == {f"{name}.nii.gz" for name in good}
    again = medseg.segment(bundle, IN, OUT, device="cpu")
    kept = {each.scan for each in again.results if each.state == "skipped"}
    assert kept == good
    assert len(list_maps(store.read())) == 4


def test_a_store_that_sends_nothing_keeps_no_call_from_ending(
    store: Store, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_folder(store, write_scans(tmp_path / "scans", 2), "in")
    monkeypatch.setattr(remote_segment, "ROUND_SCANS", 1)
    store.faults.silent = "scan_01"
    began: list[float] = []

    def stop(event: Event) -> None:
        if isinstance(event, ScanDone):
            began.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        medseg.segment(bundle, IN, OUT, device="cpu", listeners=[stop])
    # Slurm and Kubernetes kill half a minute after they have said so.
    assert time.monotonic() - began[0] < 10
    assert [entry.scan for entry in medseg.report(OUT).good] == ["scan_00"]


def test_what_is_done_is_put_while_others_are_worked_on(
    store: Store, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_folder(store, write_scans(tmp_path / "scans", 2), "in")
    monkeypatch.setattr(remote_batch, "LEDGER_SECONDS", 0.0)
    counts = []

    def look(event: Event) -> None:
        if isinstance(event, ScanDone):
            found = store.read()
            lines = found["out/shards/1-of-1/ledger.jsonl"].count(b"\n")
            counts.append((lines, len(list_maps(found))))

    medseg.segment(bundle, IN, OUT, device="cpu", listeners=[look])
    assert counts == [(1, 1), (2, 2)]


def test_no_ledger_names_what_is_not_put(
    store: Store, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_folder(store, write_scans(tmp_path / "scans", 2), "in")
    monkeypatch.setattr(remote_batch, "LEDGER_SECONDS", 0.0)
    store.faults.broken = "out/scan_00"

    def look(event: Event) -> None:
        if isinstance(event, ScanDone):
            ledgers = [
                content
                for name, content in store.read().items()
                if name.endswith("/ledger.jsonl")
            ]
            assert b'"scan_00"' not in b"".join(ledgers)

    batch = medseg.segment(bundle, IN, OUT, device="cpu", listeners=[look])
    states = {entry.scan: entry.state for entry in batch.results}
    assert states == {"scan_00": "failed", "scan_01": "done"}
    assert list_maps(store.read()).keys() == {"scan_01.nii.gz"}


def test_of_shards_that_start_at_once_none_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RemoteFolder(OUT, tmp_path / "here")
    look = RemoteFolder._has_others

    def begin_meanwhile(self: RemoteFolder) -> bool:
        store.put("out/a.nii.gz", b"1")
        store.put("out/ledger.jsonl", b"")
        return look(self)

    monkeypatch.setattr(RemoteFolder, "_has_others", begin_meanwhile)
    folder.begin()
    assert store.read().keys() == {"out/a.nii.gz", "out/ledger.jsonl"}
