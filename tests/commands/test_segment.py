"""The contract of a batch: nothing is lost, nothing half there, nobody named, every fault told."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from support import dicom as made
from support.killed_batches import Wreck, write_scans, zygote

from medseg.commands.batch import Batch
from medseg.commands.segment import segment
from medseg.errors import (
    CheckpointError,
    DatasetError,
    MedsegError,
    OutputError,
)
from medseg.events import Event, Notice, Progress
from medseg.inference.bundle_prediction import BundlePrediction
from medseg.inference.ledger import open_ledger, read_ledger
from medseg.inference.ledger_entry import Entry, QualityEntry
from medseg.inference.result_files import RESULT_FORMATS, ResultFormat
from medseg.inference.segmentation import Segmentation
from medseg.inference.segmenter import Segmenter
from medseg.io import read_image, read_labels

MakeBundle = Callable[..., Path]
PICTURES = {
    "preprocessing": {"input": "picture"},
    "network": {
        "kind": "unet",
        "dims": 2,
        "channels": [4, 8, 8],
        "strides": [1, 2, 2],
    },
    "training": {"patch": [16, 16]},
    "channels": [{"name": "grey"}],
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def bundle(untrained_bundle: MakeBundle) -> Path:
    return untrained_bundle()


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return write_scans(tmp_path / "scans", 3)


def states(batch: Batch) -> dict[str, str]:
    return {entry.scan: entry.state for entry in batch.results}


def lines(out: Path) -> list[dict]:
    return [
        json.loads(line)
        for line in (out / "ledger.jsonl").read_text().splitlines()
    ]


def files(out: Path) -> set[str]:
    return {
        p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()
    }


def test_a_batch_leaves_label_maps_a_ledger_a_table_and_a_report(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    batch = segment(bundle, scans, out)
    names = ["scan_00", "scan_01", "scan_02"]
    assert states(batch) == dict.fromkeys(names, "done")
    assert files(out) == {
        *(f"{name}.nii.gz" for name in names),
        *(f"previews/{name}.webp" for name in names),
        *(".lock", ".batch.json"),
        "ledger.jsonl",
        "volumes.csv",
        "report.html",
    }
    assert [Entry(**line) for line in lines(out)] == list(batch.results)
    segmenter = Segmenter(bundle, "cpu")
    with (out / "volumes.csv").open() as table:
        volumes = {row["scan"]: row for row in csv.DictReader(table)}
    for entry in batch.results:
        scan = read_image(scans / f"{entry.scan}.nii.gz")
        written = read_labels(out / f"{entry.scan}.nii.gz")
        assert written.on_same_grid(scan, 1e-6)
        np.testing.assert_array_equal(
            written.array[0], segmenter.segment(scan).labels
        )
        assert (entry.shape, entry.spacing_mm) == (scan.shape, scan.spacing)
        assert set(entry.seconds) == {"read", "segment", "write"}
        for index, label in enumerate(("liver", "kidney"), start=1):
            ml = (written.array == index).sum() * scan.voxel_ml
            assert entry.volumes_ml[label] == pytest.approx(ml, abs=1e-3)
            assert float(volumes[entry.scan][f"{label}_ml"]) == pytest.approx(
                ml, abs=1e-3
            )


def test_one_scan_works_like_many(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    many = segment(bundle, scans, tmp_path / "many")
    one = segment(bundle, scans / "scan_01.nii.gz", tmp_path / "one")
    assert states(one) == {"scan_01": "done"}
    assert one.results[0].files == many.results[1].files
    assert (tmp_path / "one/report.html").is_file()


def test_progress_is_told_and_no_thread_is_left(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    told: list[Event] = []
    segment(bundle, scans, tmp_path / "out", listeners=[told.append])
    assert [e.done for e in told if isinstance(e, Progress)] == [0, 1, 2, 3]
    assert not [
        t for t in threading.enumerate() if t.name.startswith("medseg-")
    ]


def test_without_a_report_no_picture_is_drawn(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    segment(bundle, scans, tmp_path / "out", report=False)
    assert not {
        name
        for name in files(tmp_path / "out")
        if name.endswith((".webp", ".html"))
    }
    # The pictures come with the next call, and the network is not run for them.
    assert set(states(segment(bundle, scans, tmp_path / "out")).values()) == {
        "skipped"
    }
    assert len(list((tmp_path / "out/previews").iterdir())) == 3


def test_results_to_review_come_worst_first(tmp_path: Path) -> None:
    def done(name: str, expected: float, review: bool) -> Entry:
        quality = QualityEntry(
            expected_dice=expected,
            lower_bound=None,
            is_calibrated=True,
            review=review,
        )
        return Entry(scan=name, state="done", quality=quality)

    entries = (
        done("a", 0.6, True),
        done("b", 0.2, True),
        done("c", 0.1, False),
    )
    batch = Batch(tmp_path, (*entries, Entry(scan="d", state="failed")))
    assert [entry.scan for entry in batch.to_review] == ["b", "a"]
    assert [entry.scan for entry in batch.failed] == ["d"]


# Continuing


def test_results_of_release_0_1_0_go_on_under_their_names(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    segment(bundle, scans, out, report=False)
    # What that release called "scan_00 肝.nii.gz".
    for file in (out / "ledger.jsonl", out / "scan_00.nii.gz"):
        text = file.read_bytes().replace(b"scan_00", b"scan_00_")
        file.write_bytes(text)
    (out / "scan_00.nii.gz").rename(out / "scan_00_.nii.gz")
    (first, *_) = sorted(scans.iterdir())
    first.rename(scans / "scan_00 肝.nii.gz")

    again = segment(bundle, scans, out, report=False)

    assert states(again)["scan_00_"] == "skipped"
    assert not (out / "scan_00_肝.nii.gz").exists()
    fresh = segment(bundle, scans, tmp_path / "fresh", report=False)
    assert states(fresh)["scan_00_肝"] == "done"
    assert (tmp_path / "fresh" / "scan_00_肝.nii.gz").is_file()


def test_the_same_call_again_does_nothing(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = segment(bundle, scans, out)
    before = {
        name: ((out / name).read_bytes(), (out / name).stat().st_ino)
        for name in files(out)
    }
    again = segment(bundle, scans, out)
    assert set(states(again).values()) == {"skipped"}
    assert not again.failed
    assert [e.volumes_ml for e in again.results] == [
        e.volumes_ml for e in first.results
    ]
    after = {
        name: ((out / name).read_bytes(), (out / name).stat().st_ino)
        for name in files(out)
    }
    same = {"ledger.jsonl", *(name for name in before if name.endswith(".gz"))}
    assert {name: after[name] for name in same} == {
        name: before[name] for name in same
    }
    # When the batch was last begun, is new.
    del after[".batch.json"], before[".batch.json"]
    assert {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in before.items()
    }


def remove_result(out: Path, scans: Path) -> None:
    (out / "scan_01.nii.gz").unlink()


def change_result(out: Path, scans: Path) -> None:
    shutil.copyfile(out / "scan_00.nii.gz", out / "scan_01.nii.gz")


def change_scan(out: Path, scans: Path) -> None:
    shutil.copyfile(scans / "scan_00.nii.gz", scans / "scan_01.nii.gz")


def forget(out: Path, scans: Path) -> None:
    kept = [
        line
        for line in (out / "ledger.jsonl").read_text().splitlines()
        if "scan_01" not in line
    ]
    (out / "ledger.jsonl").write_text("\n".join([*kept, ""]))


def tear_ledger(out: Path, scans: Path) -> None:
    whole = (out / "ledger.jsonl").read_text().splitlines(keepends=True)
    whole.sort(key=lambda line: "scan_01" in line)
    (out / "ledger.jsonl").write_text("".join(whole)[:-30])


@pytest.mark.parametrize(
    "change", [remove_result, change_result, change_scan, forget, tear_ledger]
)
def test_only_what_changed_is_done_again(
    change: Callable[[Path, Path], None],
    bundle: Path,
    scans: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    segment(bundle, scans, out)
    change(out, scans)
    again = segment(bundle, scans, out)
    assert states(again) == {
        "scan_00": "skipped",
        "scan_01": "done",
        "scan_02": "skipped",
    }
    whole = segment(bundle, scans, tmp_path / "fresh")
    assert [e.files for e in again.results] == [e.files for e in whole.results]
    assert (out / "volumes.csv").read_bytes() == (
        tmp_path / "fresh/volumes.csv"
    ).read_bytes()
    assert (out / "previews/scan_01.webp").read_bytes() == (
        tmp_path / "fresh/previews/scan_01.webp"
    ).read_bytes()


def test_a_person_is_told_when_a_changed_result_is_replaced(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    segment(bundle, scans, tmp_path / "out")
    change_result(tmp_path / "out", scans)
    change_scan(tmp_path / "out", scans)
    (scans / "scan_02.nii.gz").unlink()
    write_scans(scans, 1)
    told: list[Event] = []
    segment(bundle, scans, tmp_path / "out", listeners=[told.append])
    said = [event.message for event in told if isinstance(event, Notice)]
    assert len(said) == 1
    assert said[0].startswith(
        "scan_01: has changed, or is another scan of this name"
    )


def test_moving_or_renaming_folders_changes_nothing(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    segment(bundle, scans, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "out2")
    scans.rename(tmp_path / "elsewhere")
    bundle.rename(tmp_path / "bundle2")
    again = segment(
        tmp_path / "bundle2", tmp_path / "elsewhere", tmp_path / "out2"
    )
    assert set(states(again).values()) == {"skipped"}


def test_another_bundle_or_format_does_everything_again(
    bundle: Path, untrained_bundle: MakeBundle, scans: Path, tmp_path: Path
) -> None:
    segment(bundle, scans, tmp_path / "out")
    other = untrained_bundle("other", seed=1)
    assert set(states(segment(other, scans, tmp_path / "out")).values()) == {
        "done"
    }
    again = untrained_bundle("again", seed=1, inference={"overlap": 0.25})
    assert set(states(segment(again, scans, tmp_path / "out")).values()) == {
        "done"
    }
    assert len(lines(tmp_path / "out")) == 9


def test_asking_for_other_arithmetic_does_everything_again(
    untrained_bundle: MakeBundle, scans: Path, tmp_path: Path
) -> None:
    bundle, out = untrained_bundle(inference={"mirror": True}), tmp_path / "out"

    def found(**asked: object) -> set[str]:
        return set(states(segment(bundle, scans, out, **asked)).values())

    assert found() == {"done"}
    assert {line["arithmetic"] for line in lines(out)} == {"torch fp32"}
    # The same networks and flips.
    assert found(mirror=True, fold_ensemble=False) == {"skipped"}
    for asked in (
        {"precision": "fp32"},
        {"backend": "torch"},
        {"mirror": False},
    ):
        assert found(**asked) == {"done"}
        assert found(**asked) == {"skipped"}


def test_new_scans_are_added_and_gone_ones_stay_in_the_table(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    segment(bundle, scans, tmp_path / "out")
    (scans / "scan_00.nii.gz").unlink()
    write_scans(scans, 5)
    (scans / "scan_00.nii.gz").unlink()
    batch = segment(bundle, scans, tmp_path / "out")
    assert list(states(batch).values()) == [
        "skipped",
        "skipped",
        "done",
        "done",
    ]
    table = (tmp_path / "out/volumes.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in table[1:]] == [
        f"scan_{n:02d}" for n in range(5)
    ]


def test_a_scan_that_turns_bad_leaves_the_table_and_its_old_label_map_is_named(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    segment(bundle, scans, tmp_path / "out")
    (scans / "scan_01.nii.gz").write_bytes(b"")
    batch = segment(bundle, scans, tmp_path / "out")
    assert states(batch)["scan_01"] == "failed"
    assert "scan_01.nii.gz is of an earlier run" in batch.results[1].warnings[0]
    assert "scan_01" not in (tmp_path / "out/volumes.csv").read_text()


@pytest.mark.slow
@pytest.mark.nightly
def test_three_kills_lose_nothing(bundle: Path, tmp_path: Path) -> None:
    order = {"bundle": bundle, "scans": write_scans(tmp_path / "scans", 12)}
    out = tmp_path / "killed"
    with zygote() as forked:
        status, whole_time = forked.run(**order, out=tmp_path / "whole")
        assert status == 0
        wreck = Wreck(out, tmp_path / "whole")
        for share in (0.35, 0.45, 0.55):
            forked.run(**order, out=out, after=share * whole_time)
            wreck.check()
        assert forked.run(**order, out=out)[0] == 0
        wreck.check()
        wreck.check_whole()
        # Ctrl-C ends soon, with nothing running and nothing half written.
        status, _ = forked.run(
            **order,
            out=tmp_path / "stopped",
            after=0.4 * whole_time,
            signal=signal.SIGINT,
        )
        assert status == 130
        assert not [
            name for name in files(tmp_path / "stopped") if ".part-" in name
        ]
        assert forked.run(**order, out=tmp_path / "stopped")[0] == 0
        Wreck(tmp_path / "stopped", tmp_path / "whole").check_whole()


# Bad scans


def spoil_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def spoil_empty(path: Path) -> None:
    path.write_bytes(b"")


def spoil_text(path: Path) -> None:
    path.write_text("this is no image")


def spoil_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(100))


def spoil_constant(path: Path) -> None:
    nib.save(
        nib.Nifti1Image(
            np.zeros((20, 18, 16), np.int16), np.diag([4, 4, 4, 1])
        ),
        path,
    )


def spoil_slice(path: Path) -> None:
    nib.save(
        nib.Nifti1Image(
            np.arange(400, dtype=np.int16).reshape(20, 20, 1), np.eye(4)
        ),
        path,
    )


def spoil_channels(path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8, 2), np.int16), np.eye(4)), path)


def spoil_gone(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.nii.gz")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_truncated, "truncated or damaged"),
        (spoil_empty, "not a NIfTI file"),
        (spoil_text, "not a NIfTI file"),
        (spoil_zip, "not a NIfTI file"),
        (spoil_constant, "every voxel has the value 0"),
        (spoil_slice, "a single slice, and the network is 3D"),
        (spoil_channels, "2 channel"),
        (spoil_gone, "link to something that does not exist"),
    ],
)
def test_a_bad_scan_fails_alone_and_says_why(
    spoil: Callable[[Path], None],
    said: str,
    bundle: Path,
    scans: Path,
    tmp_path: Path,
) -> None:
    spoil(scans / "scan_01.nii.gz")
    batch = segment(bundle, scans, tmp_path / "out")
    assert sorted(states(batch).values()) == ["done", "done", "failed"]
    assert [entry.scan for entry in batch.failed] == ["scan_01"]
    assert said in batch.failed[0].error
    assert not (tmp_path / "out/scan_01.nii.gz").exists()
    assert "scan_01" not in (tmp_path / "out/volumes.csv").read_text()
    report = (tmp_path / "out/report.html").read_text()
    assert report.index("scan_01") < report.index("scan_00")


def test_all_scans_may_fail(bundle: Path, scans: Path, tmp_path: Path) -> None:
    for path in scans.iterdir():
        spoil_empty(path)
    batch = segment(bundle, scans, tmp_path / "out")
    assert len(batch.failed) == 3
    (heading,) = (tmp_path / "out/volumes.csv").read_text().splitlines()
    assert heading.startswith(
        "scan,liver_ml,kidney_ml,expected_dice,lower_bound,review"
    )


def test_a_folder_named_like_an_image_is_looked_into(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    (scans / "folder.nii.gz").mkdir()
    shutil.copy(
        scans / "scan_00.nii.gz", scans / "folder.nii.gz" / "inside.nii.gz"
    )
    batch = segment(bundle, scans, tmp_path / "out")
    assert states(batch)["folder.nii.gz_inside"] == "done"


def test_names_of_any_bytes_neither_end_the_batch_nor_reach_a_terminal(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    odd = os.fsencode(scans) + b"/a\xff\x1b[31m\n<b>.nii.gz"
    shutil.copyfile(scans / "scan_00.nii.gz", odd)
    with open(odd[:-11] + b"bad.nii.gz", "wb"), open(odd[:-11] + b".dcm", "wb"):  # noqa: PTH123
        pass
    told: list[Event] = []
    batch = segment(bundle, scans, tmp_path / "out", listeners=[told.append])
    assert sorted(states(batch).values()) == ["done"] * 4 + ["failed"] * 2
    said = [
        *batch.places.values(),
        *(e.error for e in batch.results),
        *map(repr, told),
    ]
    assert all(text.replace("\n", "").isprintable() for text in said)


def test_a_failed_scan_is_tried_again(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    good = (scans / "scan_01.nii.gz").read_bytes()
    spoil_truncated(scans / "scan_01.nii.gz")
    segment(bundle, scans, tmp_path / "out")
    (scans / "scan_01.nii.gz").write_bytes(good)
    batch = segment(bundle, scans, tmp_path / "out")
    assert states(batch) == {
        "scan_00": "skipped",
        "scan_01": "done",
        "scan_02": "skipped",
    }
    assert [line["state"] for line in lines(tmp_path / "out")].count(
        "failed"
    ) == 1


def test_real_dirty_files_never_end_the_batch(
    shared_data: Path, untrained_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle = untrained_bundle(channels=[{"name": "T1", "modality": "MR"}])
    shutil.copytree(shared_data / "hippocampus" / "dirty", tmp_path / "scans")
    good = sorted((shared_data / "hippocampus/imagesTr").glob("*.nii.gz"))[0]
    shutil.copy(good, tmp_path / "scans" / "zz_good.nii.gz")
    batch = segment(bundle, tmp_path / "scans", tmp_path / "out")
    assert states(batch)["zz_good"] == "done"
    assert all(entry.error for entry in batch.failed)
    assert not [entry for entry in batch.results if entry.state == "error"]


# Where results go


def test_results_never_replace_scans(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in scans.iterdir()}
    table = tmp_path / "list.csv"
    table.write_text("scan\nscans/scan_00.nii.gz\n")
    (tmp_path / "link").symlink_to(scans)
    for wanted, out in (
        (scans, scans),
        (scans, tmp_path / "link"),
        (scans / "scan_00.nii.gz", scans),
        (table, scans),
        (tmp_path, scans),
    ):
        with pytest.raises(
            OutputError, match="holds scans that are to be segmented"
        ):
            segment(bundle, wanted, out)
    assert {path.name: path.read_bytes() for path in scans.iterdir()} == before


def test_results_never_replace_foreign_files(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    drawn = tmp_path / "drawn_by_hand"
    drawn.mkdir()
    (drawn / "scan_01.nii.gz").write_bytes(b"precious")
    with pytest.raises(OutputError, match="not a result of medseg"):
        segment(bundle, scans, drawn)
    assert files(drawn) == {"scan_01.nii.gz"}
    assert (drawn / "scan_01.nii.gz").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["volumes.csv", "report.html"])
def test_summaries_never_replace_foreign_files(
    name: str, bundle: Path, scans: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("precious")
    with pytest.raises(OutputError, match="not a result of medseg"):
        segment(bundle, scans, tmp_path / "mine")
    assert (tmp_path / "mine" / name).read_text() == "precious"


def test_a_link_to_a_file_among_the_results_is_refused(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "x.nii.gz").symlink_to(scans / "scan_00.nii.gz")
    with pytest.raises(
        OutputError, match="holds scans that are to be segmented"
    ):
        segment(bundle, tmp_path / "links", scans)


def test_results_inside_the_folder_of_scans_are_no_scans_next_time(
    bundle: Path, scans: Path
) -> None:
    first = segment(bundle, scans, scans / "results")
    again = segment(bundle, scans, scans / "results")
    assert set(states(again)) == set(states(first))
    assert set(states(again).values()) == {"skipped"}


def test_results_are_not_segmented(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    segment(bundle, scans, tmp_path / "out")
    with pytest.raises(DatasetError, match="holds results of medseg"):
        segment(bundle, tmp_path / "out", tmp_path / "out2")


def test_a_folder_in_use_is_refused(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    with (
        open_ledger(tmp_path / "out"),
        pytest.raises(OutputError, match="another process"),
    ):
        segment(bundle, scans, tmp_path / "out")


def test_a_place_that_is_no_folder_is_refused(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match=r"this is a file|ledger cannot"):
            segment(bundle, scans, out)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_ends_the_batch_and_leaves_nothing_half_written(
    bundle: Path, tmp_path: Path, small_disk: Path
) -> None:
    scans = write_scans(tmp_path / "many", 30)
    with pytest.raises(OutputError, match="No space left on device"):
        segment(bundle, scans, small_disk)
    entries, damaged = read_ledger(small_disk / "ledger.jsonl")
    assert damaged == 0
    assert 0 < len(entries) < 30
    assert {entry.state for entry in entries.values()} == {"done"}
    assert not [name for name in files(small_disk) if ".part-" in name]
    for entry in entries.values():
        assert (
            read_labels(small_disk / f"{entry.scan}.nii.gz").shape
            == entry.shape
        )


def test_wrong_calls_leave_no_folder(
    bundle: Path, untrained_bundle: MakeBundle, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(
        MedsegError, match=r"no --format dcm; choose from nifti, nrrd"
    ):
        segment(bundle, scans, out, formats=["dcm"])
    with pytest.raises(MedsegError, match="a PNG holds one slice"):
        segment(bundle, scans, out, formats=["png"])
    with pytest.raises(MedsegError, match="not belong to a DICOM study"):
        segment(
            untrained_bundle("2d", **PICTURES),
            scans,
            out,
            formats=["dicom-seg"],
        )
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError):
        segment(bundle, tmp_path / "empty", out)
    (bundle / "models/model.pt").unlink()
    with pytest.raises(CheckpointError):
        segment(bundle, scans, out)
    assert not out.exists()


# Kinds of scans


def test_pictures_become_pictures(
    untrained_bundle: MakeBundle, tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "pictures" / "cell.png")
    write_scans(tmp_path / "pictures", 1)
    batch = segment(
        untrained_bundle(**PICTURES), tmp_path / "pictures", tmp_path / "out"
    )
    assert states(batch) == {"cell": "done", "scan_00": "failed"}
    assert (
        "is a volume, and the bundle was trained on pictures"
        in batch.failed[0].error
    )
    assert read_labels(tmp_path / "out/cell.png").shape == (32, 24, 1)


SECRETS = {
    "PatientName": "Qwertz^Zaphod",
    "PatientID": "ZX81-4711",
    "PatientBirthDate": "19520229",
    "AccessionNumber": "ACC99887766",
    "InstitutionName": "Klinik Sonnenstein",
}


def copy_series(
    source: Path, target: Path, name: str = "IM", **changes: str
) -> list[str]:
    """Copy a corner of a series under new names and with changed headers; return its UIDs."""
    target.mkdir(parents=True)
    uids = set()
    for number, file in enumerate(sorted(source.glob("*.dcm"))):
        ds = pydicom.dcmread(file)
        ds.PixelData = ds.pixel_array[100:124, 100:124].tobytes()
        ds.Rows = ds.Columns = 24
        for keyword, value in changes.items():
            setattr(ds, keyword, value)
        uids |= {ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID}
        uids.add(ds.FrameOfReferenceUID)
        ds.save_as(target / f"{name}_{number:03d}.dcm")
    return sorted(uids)


def assert_nobody_is_named(out: Path, uids: list[str], home: Path) -> None:
    words = [*SECRETS.values(), "Qwertz", "Zaphod", "4711", *uids, str(home)]
    for path in out.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if path.suffix == ".gz":
            content = nib.load(path).header.binaryblock
        named = [
            word
            for word in words
            if word.encode() in content or word in path.name
        ]
        assert not named, f"{path.name} names {named}"


def test_nothing_in_the_results_names_the_patient(
    shared_data: Path, untrained_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle = untrained_bundle(channels=[{"name": "T1", "modality": "MR"}])
    source = shared_data / "dicom_brain_mr_oblique/Study3"
    study = tmp_path / "Qwertz_Zaphod_ZX81-4711"
    name = "Zaphod_Qwertz"
    uids = copy_series(
        source / "T1post", study / "19520229" / "good", name, **SECRETS
    )
    uids += copy_series(
        source / "T2_reg", study / "Zaphod Qwertz" / "bad", name, **SECRETS
    )
    torn = sorted((study / "Zaphod Qwertz" / "bad").iterdir())[5]
    torn.write_bytes(torn.read_bytes()[:-500])
    alone = study / "Zaphod_alone"
    alone.mkdir()
    (alone / "Zaphod.dcm").write_bytes(torn.read_bytes()[:400])
    batch = segment(bundle, tmp_path, tmp_path / "out")
    assert sorted(entry.state for entry in batch.results) == [
        "done",
        "failed",
        "failed",
    ]
    assert_nobody_is_named(tmp_path / "out", uids, tmp_path)
    # The person who called is told where to look.
    assert any("Zaphod Qwertz" in place for place in batch.places.values())
    torn_scan = next(
        e.scan for e in batch.failed if e.scan.startswith("series-")
    )
    assert torn.name in batch.full_errors[torn_scan]


def test_a_dicom_series_of_another_modality_is_refused(
    bundle: Path, shared_data: Path, tmp_path: Path
) -> None:
    series = shared_data / "dicom_brain_mr_oblique/Study3/T1post"
    batch = segment(bundle, series, tmp_path / "out")
    assert len(batch.failed) == 1
    assert (
        "is MR by its DICOM header, and the bundle's channel CT is CT"
        in batch.failed[0].error
    )


def test_dicom_results_lie_beside_each_other(
    shared_data: Path, untrained_bundle: MakeBundle, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom")
    bundle = untrained_bundle(channels=[{"name": "T1", "modality": "MR"}])
    copy_series(
        shared_data / "dicom_brain_mr_oblique/Study3/T1post",
        tmp_path / "scans/T1",
    )
    volume = read_image(tmp_path / "scans/T1")
    write_scans(tmp_path / "scans", 1)
    batch = segment(
        bundle,
        tmp_path / "scans",
        tmp_path / "out",
        formats=["nifti", "dicom-seg", "rtstruct"],
    )
    done = next(entry for entry in batch.results if not entry.missing)
    assert [name.partition(".")[2] for name in done.files] == [
        "nii.gz",
        "seg.dcm",
        "rtstruct.dcm",
    ]
    assert done.shape == volume.shape
    assert (
        pydicom.dcmread(tmp_path / "out" / f"{done.scan}.seg.dcm").Modality
        == "SEG"
    )
    assert (
        pydicom.dcmread(tmp_path / "out" / f"{done.scan}.rtstruct.dcm").Modality
        == "RTSTRUCT"
    )
    (no_series,) = batch.incomplete
    assert list(no_series.files) == ["scan_00.nii.gz"]
    assert "is not a DICOM series" in no_series.missing["rtstruct"]
    assert set(states(segment(
        bundle, tmp_path / "scans/T1", tmp_path / "out", formats=["rtstruct", "dicom-seg", "nifti"]
    )).values()) == {"skipped"}  # fmt: skip


ALL_FORMATS = ["nifti", "dicom-seg", "rtstruct"]


@pytest.fixture
def ct_bundle(untrained_bundle: MakeBundle) -> Path:
    return untrained_bundle(channels=[{"name": "any"}])


def test_a_series_that_dicom_results_cannot_refer_to_keeps_its_other_formats(
    ct_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("highdicom")
    scans, out = tmp_path / "scans", tmp_path / "out"
    made.save(scans, made.series(FrameOfReferenceUID=None))
    batch = segment(ct_bundle, scans, out, formats=ALL_FORMATS, report=False)
    (entry,) = batch.incomplete
    assert not batch.failed
    label_map = f"{entry.scan}.nii.gz"
    assert list(entry.files) == [label_map]
    assert list(entry.missing) == ["dicom-seg", "rtstruct"]
    assert "Frame of Reference UID" in entry.missing["dicom-seg"]
    known = {".lock", ".batch.json", "ledger.jsonl", "volumes.csv"}
    assert files(out) == {label_map, *known}
    # It cannot come out differently, so nothing is done again, and it is said again.
    again = segment(ct_bundle, scans, out, formats=ALL_FORMATS, report=False)
    assert set(states(again).values()) == {"skipped"}
    assert again.incomplete[0].missing == entry.missing
    page = segment(ct_bundle, scans, out, formats=ALL_FORMATS).out
    assert "there is no rtstruct" in (page / "report.html").read_text()


def test_a_scan_that_can_have_no_format_fails_before_it_is_segmented(
    ct_bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom")
    scans, out = tmp_path / "scans", tmp_path / "out"
    made.save(scans, made.series(FrameOfReferenceUID=None))
    batch = segment(ct_bundle, scans, out, formats=ALL_FORMATS[1:])
    (entry,) = batch.failed
    assert "Frame of Reference UID" in entry.error
    assert set(entry.seconds) == {"read"}
    left = {".lock", ".batch.json", "ledger.jsonl", "volumes.csv"}
    left.add("report.html")
    assert files(out) == left


@pytest.mark.parametrize("order", [("broken", "nifti"), ("nifti", "broken")])
@pytest.mark.parametrize(
    ("error", "is_final"),
    [
        (OutputError("it cannot hold this"), True),
        (KeyError("Mueller, Hans"), False),
        (MemoryError(), False),
        (OutputError("no such thing"), False),
    ],
)
def test_a_format_that_fails_loses_no_other(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    order: tuple[str, str],
    error: Exception,
    is_final: bool,
) -> None:
    if not is_final and isinstance(error, OutputError):
        error.__cause__ = IsADirectoryError(21, "is a directory")
    failures = [error, error]

    def write(path: Path, *_: object) -> None:
        if failures:
            raise failures.pop()
        path.write_bytes(b"made")

    monkeypatch.setitem(
        RESULT_FORMATS._shipped, "broken", ResultFormat(".broken", write)
    )
    scans, out = write_scans(tmp_path / "scans", 2), tmp_path / "out"
    with expect_bug(error):
        segment(bundle, scans, out, formats=order)
    entries, _ = read_ledger(out / "ledger.jsonl")
    for name, entry in entries.items():
        assert entry.state == "done"
        assert list(entry.files) == [f"{name}.nii.gz"]
        assert list(entry.missing) == ["broken"]
        assert "Mueller" not in entry.missing["broken"]
        assert (out / f"{name}.nii.gz").is_file()
        assert not (out / f"{name}.broken").exists()
    again = segment(bundle, scans, out, formats=order)
    expected = "skipped" if is_final else "done"
    assert set(states(again).values()) == {expected}
    assert bool(again.incomplete) == is_final


def expect_bug(error: Exception) -> contextlib.AbstractContextManager[object]:
    if isinstance(error, KeyError):
        return pytest.raises(KeyError)
    return contextlib.nullcontext()


def test_an_earlier_file_of_a_format_that_is_missing_now_is_named(
    ct_bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom")
    scans, out = tmp_path / "scans", tmp_path / "out"
    made.save(scans, made.series())
    batch = segment(ct_bundle, scans, out, formats=ALL_FORMATS, report=False)
    (name,) = states(batch)
    made.save(scans, made.series(FrameOfReferenceUID=None))
    batch = segment(ct_bundle, scans, out, formats=ALL_FORMATS, report=False)
    (entry,) = batch.incomplete
    assert entry.warnings[-1] == (
        f"{name}.seg.dcm, {name}.rtstruct.dcm is of an earlier run, and may be of another scan"
    )


def test_components_and_error_maps_are_made_while_the_network_sees_the_next_scan(
    scans: Path,
    untrained_bundle: MakeBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[str] = []
    finish = BundlePrediction.finish

    def finish_noting(
        prediction: BundlePrediction, **given: object
    ) -> Segmentation:
        threads.append(threading.current_thread().name)
        return finish(prediction, **given)

    monkeypatch.setattr(BundlePrediction, "finish", finish_noting)
    bundle = untrained_bundle(inference={"keep_largest": ["kidney"]})
    segment(bundle, scans, tmp_path / "out", error_maps=True, device="cpu")
    assert len(threads) == 3
    assert all(name.startswith("medseg-write") for name in threads)
