"""Scans and results in an object store are those of a folder."""

from __future__ import annotations

import contextlib
import json
import logging
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
from medseg._support import object_store
from medseg.commands import remote_segment
from medseg.errors import DatasetError, MedsegError, OutputError
from medseg.inference.segmenter import Segmenter
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
    store.faults.share = 0.2
    batch = medseg.segment(bundle, IN, OUT, device="cpu")
    assert store.faults.count > 5
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
    monkeypatch.setattr(object_store, "WAITS", (0.01,))
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


@pytest.mark.parametrize(
    ("error", "left"),
    [(ValueError, {"scan_00", "scan_02"}), (KeyboardInterrupt, {"scan_00"})],
)
def test_what_was_done_before_an_error_is_in_the_store(
    store: Store,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    left: set[str],
) -> None:
    put_folder(store, write_scans(tmp_path / "scans", 3), "in")
    monkeypatch.setattr(remote_segment, "ROUND_SCANS", 2)
    segment_volume = Segmenter.predict
    seen: list[Volume] = []

    def fail_second(self: Segmenter, volume: Volume) -> Any:
        seen.append(volume)
        if len(seen) == 2:
            raise error
        return segment_volume(self, volume)

    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "predict", fail_second)
        with pytest.raises(error):
            medseg.segment(bundle, IN, OUT, device="cpu")
    found = store.read()
    assert list_maps(found).keys() == {f"{name}.nii.gz" for name in left}
    # Nor are they done again.
    again = medseg.segment(bundle, IN, OUT, device="cpu")
    kept = {each.scan for each in again.results if each.state == "skipped"}
    assert kept == left


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
    assert not list((tmp_path / "tmp").glob("medseg-*"))
