"""What lies below an address of an object store: a page at a time, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medseg._support.addresses import hide_credentials
from medseg._support.object_store import (
    StoredObject,
    describe_object,
    find_path,
    open_store,
)
from medseg._support.store_errors import StorageError, try_again

_Facts = tuple[str, Mapping[str, Any]]


def list_objects(address: str) -> Iterator[StoredObject]:
    """Give the objects below an address, sorted; their addresses begin as that one is written.

    Raises:
        StorageError: If the store cannot be listed.
        MissingExtraError: If the package for its kind is not installed.
    """
    scheme, system = open_store(address)
    if scheme == "https":
        raise StorageError(
            "what lies behind https cannot be listed; give a file, or a table of files",
            source=hide_credentials(address),
        )
    root = find_path(address).rstrip("/")
    search = _search_s3 if scheme == "s3" else _search
    for path, facts in search(system, root, address):
        if path.endswith("/"):
            continue
        below = path[len(root) :]
        yield describe_object(address.rstrip("/") + below, facts)


def _search(system: Any, root: str, address: str) -> Iterator[_Facts]:
    found = try_again(lambda: system.find(root, detail=True), address)
    yield from sorted(found.items())


def _search_s3(system: Any, root: str, address: str) -> Iterator[_Facts]:
    """Give what S3 lists, which is sorted.

    s3fs holds all of it at once, and takes hours where each of very many objects has a folder of
    its own.
    """
    bucket, key, _ = system.split_path(root)
    query = {"Bucket": bucket, "Prefix": f"{key}/" if key else ""}
    query |= system.req_kw
    while True:
        page = try_again(
            lambda: system.call_s3("list_objects_v2", **query), address
        )
        for one in page.get("Contents", ()):
            facts = {"size": one["Size"], "ETag": one.get("ETag", "")}
            yield f"{bucket}/{one['Key']}", facts
        if not page.get("IsTruncated"):
            return
        query["ContinuationToken"] = page["NextContinuationToken"]
