"""Objects come and go whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.object_stores import Store, open_store

from medseg._support.object_store import (
    NoObjectError,
    StorageError,
    StoredObject,
    fetch,
    hide_query,
    is_address,
    list_objects,
    look_at,
    put,
)

# moto takes seconds to import.
pytestmark = pytest.mark.slow


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with open_store(monkeypatch) as opened:
        yield opened


def test_objects_are_listed_with_size_and_hash(store: Store) -> None:
    store.put("a/2", b"22")
    store.put("a/b/1", b"1")
    store.put("ab/3", b"3")
    assert list(list_objects("s3://scans/a/")) == [
        StoredObject("s3://scans/a/2", 2, hashlib.md5(b"22").hexdigest()),
        StoredObject("s3://scans/a/b/1", 1, hashlib.md5(b"1").hexdigest()),
    ]
    assert list(list_objects("s3://scans/none/")) == []


def test_what_is_put_and_fetched_is_the_same_through_faults(
    store: Store, tmp_path: Path
) -> None:
    store.faults.share = 0.4
    for number in range(4):
        content = bytes([number]) * 10_000
        file = tmp_path / f"{number}"
        file.write_bytes(content)
        put(file, f"s3://scans/{number}")
        back = tmp_path / "back"
        fetch(look_at(f"s3://scans/{number}"), back)
        assert back.read_bytes() == content
    assert store.faults.count > 4


def test_a_damaged_object_is_no_file(store: Store, tmp_path: Path) -> None:
    store.put("a", b"123")
    other = StoredObject("s3://scans/a", 4)
    with pytest.raises(StorageError, match="arrives damaged"):
        fetch(other, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_tag_that_is_no_hash_is_believed_to_be_none(
    store: Store, tmp_path: Path
) -> None:
    store.put("a", b"123")
    fetch(StoredObject("s3://scans/a", 3, "0" * 32), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"123"


def test_what_is_not_there_is_not_asked_for_again(
    store: Store, tmp_path: Path
) -> None:
    store.put("a/b", b"1")
    for address in ("s3://scans/none", "s3://scans/a"):
        with pytest.raises(NoObjectError):
            look_at(address)
    with pytest.raises(NoObjectError):
        fetch(StoredObject("s3://scans/none", -1), tmp_path / "none")


def test_addresses_of_other_kinds_are_refused() -> None:
    assert hide_query("https://host/a?X-Signature=1") == "https://host/a"
    assert not is_address(Path("s3://a"))
    assert not is_address("C:/scans")
    with pytest.raises(StorageError, match="begin with s3://"):
        look_at("ftp://host/file?password=x")
    with pytest.raises(StorageError, match="cannot be listed"):
        list(list_objects("https://host/folder"))
