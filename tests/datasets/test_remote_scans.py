"""Scans by their addresses."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from medseg._support.object_store import StoredObject
from medseg._support.store_errors import NoObjectError
from medseg.datasets import fetched_scans, remote_scans
from medseg.datasets.fetched_scans import FetchedScans
from medseg.datasets.remote_scans import find_remote_scans, lists_addresses
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

    monkeypatch.setattr(fetched_scans, "look_at", look_at)
    monkeypatch.setattr(fetched_scans, "fetch", fetch)
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


def test_results_below_an_address_are_not_segmented_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["a.nii.gz", "out/a.nii.gz", "out/ledger.jsonl", "out_/b.nii.gz"]
    places.append("out_a.nii.gz")

    def list_objects(address: str) -> list[StoredObject]:
        return [StoredObject(f"{address}/{place}", 1) for place in places]

    monkeypatch.setattr(remote_scans, "list_objects", list_objects)
    found = find_remote_scans("s3://bucket/in", tmp_path, take_all)
    chosen = ["a.nii.gz", "out_/b.nii.gz", "out_a.nii.gz"]
    assert [scan.place for scan in found.scans] == chosen
    assert any("out/ holds results of medseg" in note for note in found.notes)
    places[:] = ["out/a.nii.gz", "out/ledger.jsonl"]
    with pytest.raises(DatasetError, match="no scan was found"):
        find_remote_scans("s3://bucket/in", tmp_path, take_all)
    places[:] = ["a.nii.gz", "ledger.jsonl"]
    with pytest.raises(DatasetError, match="holds results of medseg"):
        find_remote_scans("s3://bucket/in", tmp_path, take_all)


def test_a_table_has_a_column_for_each_channel_as_for_files_here(
    tmp_path: Path,
) -> None:
    table = tmp_path / "list.csv"
    table.write_text("name,t1,t2\na,s3://b/1.nii.gz,s3://b/2.nii.gz\n")
    channels = ["t1", "t2"]
    assert lists_addresses(str(table), channels)
    found = find_remote_scans(str(table), tmp_path, take_all, channels)
    assert found.columns == ("t1", "t2")
    (scan,) = found.scans
    assert scan.cells == ("s3://b/1.nii.gz", "s3://b/2.nii.gz")
    with pytest.raises(DatasetError, match="columns t1, t3"):
        find_remote_scans(str(table), tmp_path, take_all, ["t1", "t3"])


@pytest.mark.parametrize(
    ("names", "is_refused"),
    [
        (["a_0000", "a_0001", "b_0000"], True),
        (["a_T1", "a_T2"], True),
        # Numbered pictures in colour, of which each has all channels.
        (["a_0001"], False),
        (["a_0000", "a_0001", "a_0002"], False),
        (["a", "a_T1", "a_T2"], False),
    ],
)
def test_files_of_single_channels_are_refused_before_they_are_fetched(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    is_refused: bool,
) -> None:
    def list_objects(address: str) -> list[StoredObject]:
        return [StoredObject(f"{address}/{name}.nii.gz", 1) for name in names]

    monkeypatch.setattr(remote_scans, "list_objects", list_objects)
    refusal = pytest.raises(DatasetError, match="columns name, t1, t2")
    with refusal if is_refused else contextlib.nullcontext():
        find_remote_scans("s3://b/in", tmp_path, take_all, ["t1", "t2"])
    found = find_remote_scans("s3://b/in", tmp_path, take_all, ["t2"])
    assert len(found.scans) == len(names)
