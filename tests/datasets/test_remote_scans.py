"""Scans by their addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg._support.object_store import (
    NoAnswerError,
    NoObjectError,
    StorageError,
    StoredObject,
)
from medseg.datasets import remote_scans
from medseg.datasets.remote_scans import (
    MOST_SILENT,
    FetchedScans,
    RemoteScan,
    fetch_rounds,
    find_remote_scans,
    lists_addresses,
)
from medseg.errors import DatasetError

SIGNED = "https://host/{}?credential=a/b&signature=secret"


def take_all(name: str) -> bool:
    return bool(name)


def test_signed_links_are_called_by_their_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "list.csv"
    lines = [SIGNED.format("a/ct.nii.gz"), SIGNED.format("mr.nii.gz")]
    table.write_text("\n".join(["scan", *lines, ""]))
    assert lists_addresses(str(table))
    found = find_remote_scans(str(table), tmp_path, take_all)
    assert [scan.name for scan in found.scans] == ["ct", "mr"]

    def look_at(address: str) -> StoredObject:
        if "mr.nii.gz" in address:
            raise NoObjectError("there is no such object")
        return StoredObject(address, -1)

    def fetch(stored: StoredObject, file: Path) -> None:
        assert stored.address.endswith("signature=secret")
        file.parent.mkdir(parents=True)
        file.write_bytes(b"")

    monkeypatch.setattr(remote_scans, "look_at", look_at)
    monkeypatch.setattr(remote_scans, "fetch", fetch)
    fetched = FetchedScans(tmp_path / "fetched")
    for scan in found.scans:
        fetched.add(scan)
    files = [Path(scan.cells[0]).name for scan in fetched.scans]
    assert files == ["ct.nii.gz", "mr.nii.gz"]
    # One that is gone does not stop the others.
    assert fetched.missing == [SIGNED.format("mr.nii.gz")]


def test_an_error_about_signed_links_holds_no_signature(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    link = SIGNED.format("ct.nii.gz")
    table.write_text(f"name,scan\na,{link}\na,{link}\n")
    with pytest.raises(DatasetError, match="one name") as caught:
        find_remote_scans(str(table), tmp_path, take_all)
    assert "secret" not in str(caught.value)


def test_only_the_columns_of_scans_lead_to_stores(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("name,scan,origin\na,ct.nii.gz,https://host/ct\n")
    assert not lists_addresses(str(table))
    assert not lists_addresses(str(tmp_path))
    assert not lists_addresses(str(tmp_path / "none.csv"))


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

    monkeypatch.setattr(remote_scans, "look_at", look_at)
    monkeypatch.setattr(remote_scans, "fetch", fetch)
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
