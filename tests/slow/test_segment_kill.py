"""Kills at random moments lose nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import pytest
from support import dicom as made
from support.killed_batches import Wreck, write_scans, zygote

from medseg.bundle.hashes import hash_file
from medseg.commands.report import report
from medseg.dicom_labels.rois import read_rois
from medseg.dicom_labels.seg_reader import read_dicom_seg
from medseg.inference.ledger import read_ledger, read_ledgers

SCANS, SHARD_SCANS = 40, 12
SERIES, FORMAT_KILLS = 6, 6
KILLED = -9


@pytest.mark.slow
@pytest.mark.parametrize(
    "count", [25, pytest.param(100, marks=pytest.mark.nightly)]
)
def test_many_kills_at_random_moments_lose_nothing(
    count: int, tmp_path: Path, untrained_bundle: Callable[..., Path]
) -> None:
    order = {
        "bundle": untrained_bundle(),
        "scans": write_scans(tmp_path / "scans", SCANS),
    }
    chance = random.Random(0)
    with zygote() as forked:
        status, whole_time = forked.run(**order, out=tmp_path / "whole")
        assert status == 0
        kills, rounds, moments = 0, 0, set()
        while kills < count:
            out, rounds = tmp_path / f"killed_{rounds}", rounds + 1
            wreck, status = Wreck(out, tmp_path / "whole"), KILLED
            while status == KILLED and kills < count:
                # Short lives, so that many kills hit one batch before it is over.
                after = chance.uniform(0, 0.3 * whole_time)
                status, _ = forked.run(**order, out=out, after=after)
                kills += status == KILLED
                moments.add(wreck.check())
            assert forked.run(**order, out=out)[0] == 0
            assert wreck.check() == SCANS
            wreck.check_whole()
    assert len(moments) > count / 10  # they fell all along the batch


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_kills_leave_every_format_whole_or_not_there(
    tmp_path: Path, untrained_bundle: Callable[..., Path]
) -> None:
    pytest.importorskip("highdicom")
    for number in range(SERIES):
        pixels = made.voxels((24, 20, 6), seed=number)
        shown = made.series(pixels, name=f"series {number}")
        made.save(tmp_path / "scans" / str(number), shown)
    order = {
        "bundle": untrained_bundle(channels=[{"name": "any"}]),
        "scans": tmp_path / "scans",
        "formats": ["nifti", "dicom-seg", "rtstruct"],
    }
    chance = random.Random(0)
    with zygote() as forked:
        _, whole_time = forked.run(**order, out=tmp_path / "whole")
        out, kills = tmp_path / "killed", 0
        for _ in range(FORMAT_KILLS):
            after = chance.uniform(0.3, 0.9) * whole_time
            status, _ = forked.run(**order, out=out, after=after)
            kills += status == KILLED
            check_files(out)
        assert forked.run(**order, out=out)[0] == 0
    assert kills
    entries, _ = read_ledger(out / "ledger.jsonl")
    assert len(entries) == SERIES
    assert all(len(entry.files) == 3 for entry in entries.values())
    assert not list(out.rglob(".part*"))


@pytest.mark.slow
def test_killed_shards_make_what_a_batch_of_one_makes(
    tmp_path: Path, untrained_bundle: Callable[..., Path]
) -> None:
    order = {
        "bundle": untrained_bundle(),
        "scans": write_scans(tmp_path / "scans", SHARD_SCANS),
    }
    chance = random.Random(1)
    out = tmp_path / "shards"
    with zygote() as forked:
        _, whole_time = forked.run(**order, out=tmp_path / "whole")
        kills = 0
        # The number changes in the middle.
        for number in (1, 2, 3, 1, 2, 3):
            after = chance.uniform(0, 0.5 * whole_time)
            status, _ = forked.run(
                **order, out=out, shard=f"{number}/3", after=after
            )
            kills += status == KILLED
        for number in (1, 2):
            assert forked.run(**order, out=out, shard=f"{number}/2")[0] == 0
    assert kills
    whole, _ = read_ledger(tmp_path / "whole" / "ledger.jsonl")
    entries, damaged = read_ledgers(out)
    assert not damaged
    assert report(out).is_whole
    assert {name: entry.files for name, entry in entries.items()} == {
        name: entry.files for name, entry in whole.items()
    }
    for entry in entries.values():
        for name, digest in entry.files.items():
            assert hash_file(out / name) == digest


def check_files(out: Path) -> None:
    """Check that every result file can be read to its end, and is what the ledger says."""
    for file in out.glob("[!.]*"):
        if file.name.endswith(".nii.gz"):
            assert nib.load(file).get_fdata().any() in (True, False)
        elif file.name.endswith(".rtstruct.dcm"):
            assert len(read_rois(file)) == 2
        elif file.name.endswith(".seg.dcm"):
            assert read_dicom_seg(file).array.ndim == 4
    if not (out / "ledger.jsonl").is_file():
        return
    entries, damaged = read_ledger(out / "ledger.jsonl")
    assert not damaged
    for entry in entries.values():
        for name, digest in entry.files.items():
            assert hash_file(out / name) == digest
