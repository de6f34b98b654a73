"""Files of results on their way to an object store are those of their scans alone."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from medseg._support.object_store import StoredObject
from medseg._support.store_errors import NoObjectError, StorageError
from medseg.commands import remote_batch
from medseg.commands.remote_batch import RemoteFolder
from medseg.errors import BusyError
from medseg.inference.batch_state import STATE
from medseg.inference.ledger_entry import Entry
from medseg.inference.shards import Shard
from medseg.names import LEDGER


def test_a_scan_has_no_part_in_the_files_of_another_whose_name_goes_on(
    tmp_path: Path,
) -> None:
    names = ["a.nii.gz", "a.png", "a.b.nii.gz", "a.b.png", "ab.nii.gz"]
    for folder in ("error_maps", "previews"):
        (tmp_path / folder).mkdir()
    for name in names:
        (tmp_path / "error_maps" / name).touch()
    for name in ("a.webp", "a.b.webp"):
        (tmp_path / "previews" / name).touch()
    results = RemoteFolder("s3://results/out", tmp_path)
    # What failed is not put into the store, and removed here.
    results.put_results([Entry(scan="a", state="failed", error="x")])
    left = {file.name for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {"a.b.nii.gz", "a.b.png", "ab.nii.gz", "a.b.webp"}


def test_where_error_maps_are_wanted_earlier_ones_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_at(address: str) -> StoredObject:
        if address.endswith(".png"):
            raise NoObjectError("there is none", source=address)
        return StoredObject(address, 0)

    def fetch(stored: StoredObject, file: Path) -> None:
        fetched.append(file.relative_to(tmp_path).as_posix())

    monkeypatch.setattr(remote_batch, "look_at", look_at)
    monkeypatch.setattr(remote_batch, "fetch", fetch)
    results = RemoteFolder("s3://results/out", tmp_path)
    entry = Entry(scan="a", state="done", files={"a.nii.gz": "0"})
    results.entries.add(entry, entry.model_dump_json().encode())
    fetched: list[str] = []
    results.fetch_results(["a", "b"])
    assert fetched == ["a.nii.gz", "previews/a.webp"]
    fetched.clear()
    results.fetch_results(["a"], error_maps=True)
    assert fetched[2:] == ["error_maps/a.nii.gz"]


class Memory:
    """Holds objects as a store does; a put may fail after it was done."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fails = False

    def look_at(self, address: str) -> StoredObject:
        if address not in self.objects:
            raise NoObjectError("there is none", source=address)
        content = self.objects[address]
        return StoredObject(address, len(content), content.decode())

    def put(self, file: Path, address: str) -> None:
        self.objects[address] = file.read_bytes()
        if self.fails:
            raise StorageError("nobody knows whether it arrived")


def test_a_ledger_that_another_call_has_put_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Memory()
    monkeypatch.setattr(remote_batch, "look_at", store.look_at)
    monkeypatch.setattr(remote_batch, "put", store.put)
    shard = Shard(1, 1)
    folder = tmp_path / shard.folder
    folder.mkdir(parents=True)
    (folder / STATE).write_text("state")
    results = RemoteFolder("s3://results/out", tmp_path)
    ledger = f"s3://results/out/{shard.folder}/{LEDGER}"
    for text in ("a", "ab", "abc"):
        (folder / LEDGER).write_text(text)
        # One whose answer is lost is no other's.
        store.fails = text == "ab"
        with contextlib.suppress(StorageError):
            results.put_ledger(shard, now=True)
        assert store.objects[ledger] == text.encode()
    store.objects[ledger] = b"of another"
    with pytest.raises(BusyError, match="another call"):
        results.put_ledger(shard, now=True)
    assert store.objects[ledger] == b"of another"
    # Whoever removes it does not work here.
    del store.objects[ledger]
    results.put_ledger(shard, now=True)
    other = RemoteFolder("s3://results/out", tmp_path)
    with pytest.raises(BusyError):
        other.put_ledger(shard, now=True)
