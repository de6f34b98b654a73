"""Scans of an object store, fetched some at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg._support import object_store
from medseg._support.object_store import StoredObject
from medseg._support.store_errors import (
    NoAnswerError,
    NoObjectError,
    StorageError,
)
from medseg.datasets import fetched_scans
from medseg.datasets.fetched_scans import (
    MOST_SILENT,
    FetchedScans,
    fetch_rounds,
)
from medseg.datasets.remote_scans import RemoteScan


def test_a_store_is_not_asked_for_ever_when_it_no_longer_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_at(address: str) -> StoredObject:
        if "gone" in address:
            raise NoObjectError("there is no such object")
        if "forbidden" in address:
            raise StorageError("is not allowed")
        if "silent" in address:
            raise NoAnswerError("cannot be read")
        return StoredObject(address, 1)

    def fetch(stored: StoredObject, file: Path) -> None:
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")

    monkeypatch.setattr(fetched_scans, "look_at", look_at)
    monkeypatch.setattr(fetched_scans, "fetch", fetch)
    kinds = ["silent", "silent", "good", "silent", "forbidden", "forbidden"]
    kinds += ["forbidden", "good", *(MOST_SILENT * ["silent"]), "good"]
    scans = []
    for number, kind in enumerate(kinds):
        address = f"https://host/{kind}/{number}.nii.gz"
        scans.append(RemoteScan(str(number), (address,)))
    folders = (tmp_path / str(number) for number in range(9))
    rounds = fetch_rounds(
        scans, lambda: next(folders), most_scans=4, most_bytes=1 << 30
    )
    found: list[FetchedScans] = []
    with pytest.raises(NoAnswerError):
        found.extend(rounds)
    # What the rounds before hold, and the last one, was given nevertheless.
    got = [scan.name for fetched in found for scan in fetched.scans]
    failed = [name for fetched in found for name in fetched.failed]
    assert got == ["2", "7"]
    assert failed == ["0", "1", "3", "4", "5", "6", "8", "9", "10"]
    assert [fetched.count for fetched in found] == [4, 4, 3]


class Objects:
    """Holds an object of any name."""

    def _strip_protocol(self, address: str) -> str:
        return address.partition("://")[2]

    def info(self, path: str) -> dict[str, object]:
        return {"type": "file", "size": 1}

    def get_file(self, path: str, file: str) -> None:
        Path(file).write_bytes(b"x")


def test_an_object_that_no_file_can_be_called_like_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_make_system", lambda *_: Objects())
    places = ["a.nii.gz", "a.nii.gz/b.nii.gz", f"{'l' * 300}.nii.gz", "z.nii"]
    scans = [
        RemoteScan(place[:12], (f"https://host/{place}",), place)
        for place in places
    ]
    (fetched,) = fetch_rounds(
        scans, lambda: tmp_path / "scans", most_scans=9, most_bytes=1 << 30
    )
    assert [scan.place for scan in fetched.scans] == ["a.nii.gz", "z.nii"]
    told = {error.message for error in fetched.failed.values()}
    assert len(fetched.failed) == 2
    assert "another name" in told.pop()


def test_no_object_is_fetched_to_a_place_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_make_system", lambda *_: Objects())
    outside = tmp_path / "outside.nii"
    # On Windows, C: and parts with \\ lead out of a folder as these do here.
    places = [str(outside), "../outside.nii", "a/../../outside.nii", "n\0.nii"]
    scans = [
        RemoteScan(str(number), ("s3://bucket/a.nii",), place)
        for number, place in enumerate(places)
    ]
    fetched = FetchedScans(tmp_path / "scans")
    for scan in scans:
        with pytest.raises(StorageError, match="another name"):
            fetched.add(scan)
    assert not outside.exists()


def test_slices_that_would_lie_in_one_file_do_not_replace_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_at(address: str) -> StoredObject:
        raise NoObjectError("there is no such object")

    def list_objects(address: str) -> list[StoredObject]:
        return [StoredObject(address + name, 1) for name in names]

    monkeypatch.setattr(fetched_scans, "look_at", look_at)
    monkeypatch.setattr(fetched_scans, "list_objects", list_objects)
    monkeypatch.setattr(object_store, "_make_system", lambda *_: Objects())
    # Elsewhere, 1.dcm and 1.DCM are such, too.
    names = ["a/1.dcm", "a\\1.dcm"]
    fetched = FetchedScans(tmp_path)
    fetched.add(RemoteScan("a", ("s3://bucket/series",)))
    names = ["a_1.dcm", "a\\1.dcm"]
    with pytest.raises(StorageError, match="another name"):
        fetched.add(RemoteScan("b", ("s3://bucket/series",)))


def test_an_object_that_is_larger_than_the_disk_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter([1 << 60, 1])
    monkeypatch.setattr(
        fetched_scans,
        "look_at",
        lambda address: StoredObject(address, next(sizes)),
    )
    monkeypatch.setattr(object_store, "_make_system", lambda *_: Objects())
    scans = [
        RemoteScan(name, (f"https://host/{name}.nii",), f"{name}.nii")
        for name in "ab"
    ]
    (fetched,) = fetch_rounds(
        scans, lambda: tmp_path / "scans", most_scans=9, most_bytes=1 << 30
    )
    assert [scan.name for scan in fetched.scans] == ["b"]
    assert "TMPDIR" in fetched.failed["a"].message


@pytest.mark.parametrize(
    ("name", "header", "voxels"),
    [
        ("ct.mhd", b"NDims = 3\r\nElementDataFile = 1 2.raw\r\n", ["1 2.raw"]),
        ("ct.nhdr", b"NRRD0004\ndata file: ./ct.raw.gz\n", ["ct.raw.gz"]),
        ("ct.hdr", b"", ["ct.img", "ct.img.gz"]),
        ("ct.mhd", b"ElementDataFile = LOCAL\n", []),
        ("ct.mhd", b"ElementDataFile = LIST\nct.1\n", []),
        ("ct.mhd", b"ElementDataFile = ../ct.raw\n", []),
        ("ct.mhd", b"ElementDataFile = ..\n", []),
        ("ct.nii", b"ElementDataFile = ct.raw\n", []),
    ],
)
def test_the_voxels_of_a_header_come_with_it_by_the_same_signature(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    header: bytes,
    voxels: list[str],
) -> None:
    asked = []

    def look_at(address: str) -> StoredObject:
        asked.append(address)
        if address.endswith(".img?signature=a/b"):
            raise NoObjectError("there is no such object")
        return StoredObject(address, -1)

    def fetch(stored: StoredObject, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(header)

    monkeypatch.setattr(fetched_scans, "look_at", look_at)
    monkeypatch.setattr(fetched_scans, "fetch", fetch)
    link = "https://host/a/{}?signature=a/b"
    fetched = FetchedScans(tmp_path / "scans")
    fetched.add(RemoteScan("ct", (link.format(name),)))
    assert asked == [link.format(each) for each in (name, *voxels)]
    assert not fetched.missing
