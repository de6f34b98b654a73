"""Objects come and go whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.server
import threading
import time
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.object_stores import SECRET, Store, open_store

from medseg._support import object_store, store_errors
from medseg._support.addresses import hide_credentials, is_address
from medseg._support.object_listing import list_objects
from medseg._support.object_store import StoredObject, fetch, look_at, put
from medseg._support.store_errors import NoObjectError, StorageError
from medseg.errors import OutputError

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


def test_a_damaged_object_is_no_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a", b"123")
    other = StoredObject("s3://scans/a", 4)
    monkeypatch.setattr(object_store, "look_at", lambda _: other)
    with pytest.raises(StorageError, match="arrives damaged"):
        fetch(other, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_an_object_that_was_replaced_since_it_was_listed_is_fetched_as_it_is(
    store: Store, tmp_path: Path
) -> None:
    store.put("a", b"1")
    (listed,) = list_objects("s3://scans/")
    store.put("a", b"123")
    fetched = fetch(listed, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"123"
    assert fetched == look_at("s3://scans/a")


def test_where_one_tag_is_no_hash_others_are_not_fetched_twice(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_OPAQUE_BUCKETS", set())
    _, system = object_store.open_store("s3://scans/")
    counts = []
    get_file = system.get_file

    def count(path: str, file: str) -> None:
        counts.append(path)
        get_file(path, file)

    monkeypatch.setattr(system, "get_file", count)
    # As S3 states it of what it encrypts with a key of the customer.
    facts = {"size": 3, "ETag": '"' + "0" * 32 + '"', "type": "file"}
    monkeypatch.setattr(system, "info", lambda _: facts)
    for name in ("a", "b", "c"):
        store.put(name, b"123")
        fetch(look_at(f"s3://scans/{name}"), tmp_path / name)
    assert counts == ["scans/a", "scans/a", "scans/b", "scans/c"]


def test_a_full_disk_is_no_fault_of_the_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a", b"123")
    stored = look_at("s3://scans/a")
    tries: list[str] = []

    class FullDisk:
        _strip_protocol = staticmethod(str)

        def get_file(self, path: str, file: str) -> None:
            tries.append(path)
            raise OSError(errno.ENOSPC, "No space left on device", file)

    with monkeypatch.context() as patch:
        patch.setattr(object_store, "_make_system", lambda *_: FullDisk())
        with pytest.raises(OutputError, match="free space"):
            fetch(stored, tmp_path / "a")
    assert len(tries) == 1


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


def test_what_lies_below_an_address_is_called_as_the_address_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accounts: list[str] = []

    class Azure:
        """Takes addresses apart as adlfs does."""

        def _strip_protocol(self, address: str) -> str:
            host, _, path = address.partition("://")[2].partition("/")
            return f"{host.partition('@')[0]}/{path}".rstrip("/")

        def find(self, path: str, detail: bool) -> dict[str, dict[str, Any]]:
            assert path == "archive/scans"
            # As adlfs gives it.
            md5 = bytearray(hashlib.md5(b"1").digest())
            settings = types.SimpleNamespace(content_md5=md5)
            facts = {"size": 1, "content_settings": settings}
            return {"archive/scans//a.nii.gz": facts}

    def open_azure(scheme: str, account: str) -> Azure:
        accounts.append(account)
        return Azure()

    monkeypatch.setattr(object_store, "_make_system", open_azure)
    address = "abfs://archive@hospital.dfs.core.windows.net/scans/"
    (found,) = list_objects(address)
    assert found.address == address + "/a.nii.gz"
    assert found.md5 == hashlib.md5(b"1").hexdigest()
    # Google writes it so.
    facts = {"size": 1, "md5Hash": "xMpCOKC5I4INzFCab3WEmw=="}
    assert object_store.describe_object(address, facts).md5 == found.md5
    assert set(accounts) == {"hospital"}
    list(list_objects("az://archive/scans"))
    assert accounts[-1] == ""
    # Whoever signs in there is no account of Azure.
    object_store.open_store("https://name:word@host.org/a.nii.gz")
    assert accounts[-1] == ""


def test_a_version_that_would_not_be_the_one_read_is_refused() -> None:
    with pytest.raises(StorageError, match="cannot be chosen"):
        look_at("s3://scans/ct.nii.gz?versionId=abc")


def test_addresses_of_other_kinds_are_refused() -> None:
    assert hide_credentials("https://host/a?X-Signature=1") == "https://host/a"
    assert not is_address(Path("s3://a"))
    assert not is_address("C:/scans")
    with pytest.raises(StorageError, match="begin with s3://"):
        look_at("ftp://host/file?password=x")
    with pytest.raises(StorageError, match="cannot be listed"):
        list(list_objects("https://host/folder"))


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path: with a status, or content after two errors."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        _, status, *_ = self.path.replace("?", "/").split("/")
        if status == "200" and len(self.seen) < 3:
            status = "500"
        self.send_response(int(status))
        self.send_header("Content-Length", "3")
        self.end_headers()
        # Who only looks at the headers goes away.
        with contextlib.suppress(ConnectionError):
            for part in (b"1", b"2", b"3"):
                self.wfile.write(part)
                time.sleep(0.1 * ("slow" in self.path))

    def do_HEAD(self) -> None:
        self.send_error(403)

    def log_message(self, *args: Any) -> None:
        """Be silent."""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve what stands for HTTPS, without certificates; signed addresses begin with it."""
    aiohttp = pytest.importorskip("aiohttp")
    from fsspec.implementations.http import HTTPFileSystem

    # Of all that is sent, not of the silence in between: a large scan takes longer than it allows.
    short = aiohttp.ClientTimeout(total=0.2)
    monkeypatch.setattr("aiohttp.client.DEFAULT_TIMEOUT", short)

    class PlainSystem(HTTPFileSystem):  # type: ignore[misc]
        def encode_url(self, url: str) -> Any:
            return super().encode_url(url.replace("https:", "http:", 1))

    options = object_store._choose_options("https", "")
    system = PlainSystem(skip_instance_cache=True, **options)
    monkeypatch.setattr(object_store, "_make_system", lambda *_: system)
    monkeypatch.setattr(store_errors, "WAITS", 3 * (0.01,))
    _Handler.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_fails_behind_https_is_tried_again_and_is_not_taken_for_absent(
    web: str, tmp_path: Path
) -> None:
    stored = look_at(f"{web}/200/ct.nii.gz?signature={SECRET}")
    fetch(stored, tmp_path / "ct")
    assert (tmp_path / "ct").read_bytes() == b"123"
    fetch(look_at(f"{web}/201/slow.nii.gz"), tmp_path / "slow")
    assert (tmp_path / "slow").read_bytes() == b"123"
    with pytest.raises(StorageError, match="several further tries"):
        look_at(f"{web}/500/ct.nii.gz?signature={SECRET}")


@pytest.mark.parametrize(
    ("status", "kind", "why"),
    [
        (404, NoObjectError, "no such object"),
        (403, StorageError, "is not allowed"),
    ],
)
def test_a_refusal_behind_https_holds_no_signature(
    web: str, status: int, kind: type[Exception], why: str
) -> None:
    with pytest.raises(kind, match=why) as caught:
        look_at(f"{web}/{status}/ct.nii.gz?signature={SECRET}")
    assert len(_Handler.seen) == 1
    text = "".join(traceback.format_exception(caught.value))
    assert SECRET not in text
