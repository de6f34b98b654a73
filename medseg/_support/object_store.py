"""Objects in S3, Google Cloud Storage, Azure or behind HTTPS: fetched and put whole, by fsspec.

Credentials are the provider's own matter (environment, configuration files, roles of machines), and
so no text of a foreign error is passed on: it may hold a signed address.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from medseg._support.addresses import (
    AZURE_SCHEMES,
    SCHEMES,
    find_account,
    find_scheme,
    hide_credentials,
    is_https,
)
from medseg._support.files import atomic_file
from medseg._support.store_errors import (
    DamagedError,
    NoObjectError,
    StorageError,
    try_again,
)
from medseg.errors import MissingExtraError

_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_CHUNK = 1 << 20
_CONNECT_SECONDS = 20
_SILENT_SECONDS = 60
"""How long a store may send nothing; how long it sends altogether is not limited."""

_OPAQUE_BUCKETS: set[str] = set()
"""Those whose tags are no MD5: or else each of their objects would be fetched twice."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a store lists it.

    Attributes:
        address: Its address.
        size: Its bytes; -1 if the store does not say.
        md5: Its MD5, where the store states that.
    """

    address: str
    size: int
    md5: str = ""


def look_at(address: str) -> StoredObject:
    """Return the size of an object, and its MD5 if the store states it.

    Raises:
        NoObjectError: If there is none.
        StorageError: If the store does not answer, or does not allow it.
        MissingExtraError: If the package for its kind is not installed.
    """
    _, system = open_store(address)
    facts = try_again(lambda: system.info(find_path(address)), address)
    if facts.get("type") == "directory":
        raise NoObjectError(
            "there is no such object", source=hide_credentials(address)
        )
    return describe_object(address, facts)


def fetch(stored: StoredObject, file: Path) -> StoredObject:
    """Fetch an object: the file appears whole, with the size and the MD5 that the store states.

    It may have been replaced since the store was asked: before each further try it is asked again.
    Some stores state a tag that looks like an MD5 and is none, as S3 does of objects that it
    encrypts: what arrives twice alike is taken, too, and the tags of its bucket count no more.

    Returns:
        The object, as the store stated it when it was fetched.

    Raises:
        NoObjectError: If there is none.
        StorageError: If it cannot be fetched.
        OutputError: If the file cannot be written.
    """
    _, system = open_store(stored.address)
    path = find_path(stored.address)
    bucket = stored.address.split("/")[2]
    arrived: set[str] = set()
    stated = [stored]
    with atomic_file(file) as temporary:

        def get() -> StoredObject:
            if not stated:
                stated.append(look_at(stored.address))
            one = stated.pop()
            system.get_file(path, str(temporary))
            if one.size not in (-1, temporary.stat().st_size):
                raise DamagedError
            if not one.md5 or bucket in _OPAQUE_BUCKETS:
                return one
            digest = _hash(temporary)
            if digest == one.md5:
                return one
            if digest not in arrived:
                arrived.add(digest)
                raise DamagedError
            _OPAQUE_BUCKETS.add(bucket)
            return one

        return try_again(get, stored.address)


def put(file: Path, address: str) -> None:
    """Put a file: the object appears whole or not at all, and is read back and compared.

    Raises:
        StorageError: If it cannot be put.
    """
    _, system = open_store(address)
    path = find_path(address)

    def upload() -> None:
        system.put_file(str(file), path)
        if system.cat_file(path) != file.read_bytes():
            raise DamagedError

    try_again(upload, address)


def refuse_read_only(address: str) -> None:
    """Refuse an address that nothing can be put at.

    Raises:
        StorageError: If it is one.
    """
    if is_https(address):
        raise StorageError(
            "nothing can be put behind https; give a folder of this machine, or the address of one "
            "in a store, such as s3://bucket/results",
            source=hide_credentials(address),
        )


def _hash(file: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def describe_object(address: str, facts: Mapping[str, Any]) -> StoredObject:
    """Describe an object by what fsspec tells of it."""
    size = facts.get("size")
    return StoredObject(
        address, -1 if size is None else int(size), _find_md5(facts)
    )


def _find_md5(facts: Mapping[str, Any]) -> str:
    """Return the MD5 that a store states, in hex; empty if it states none."""
    encoded = facts.get("md5Hash")
    if isinstance(encoded, str):  # Google's way
        return base64.b64decode(encoded).hex()
    settings = facts.get("content_settings")
    if (
        settings is not None
    ):  # Azure's way; of what was put in parts it states none
        return bytes(settings.content_md5 or b"").hex()
    # Of an object that was put in parts, the tag is no MD5, and has another form.
    match = _MD5.fullmatch(str(facts.get("ETag", "")))
    return match[1] if match else ""


def find_path(address: str) -> str:
    """Return what fsspec calls an object."""
    scheme, system = open_store(address)
    return (
        address if scheme == "https" else str(system._strip_protocol(address))
    )


def open_store(address: str) -> tuple[str, Any]:
    """Return an address's scheme, and fsspec's file system for it.

    Raises:
        StorageError: If there is none, or its settings are wrong.
        MissingExtraError: If the package for its kind is not installed.
    """
    scheme = find_scheme(address)
    if scheme not in SCHEMES:
        raise StorageError(
            f"addresses of objects begin with {', '.join(f'{one}://' for one in SCHEMES)}",
            source=hide_credentials(address),
        )
    if scheme == "s3" and "?versionId=" in address:
        raise StorageError(
            "a version of an object cannot be chosen: the newest is read; leave out ?versionId=",
            source=hide_credentials(address),
        )
    return scheme, _make_system(scheme, find_account(address))


@cache
def _make_system(scheme: str, account: str = "") -> Any:
    try:
        import fsspec

        return fsspec.filesystem(
            scheme.replace("abfss", "abfs"),  # fsspec knows it by that name
            use_listings_cache=False,
            skip_instance_cache=True,
            **_choose_options(scheme, account),
        )
    except ImportError as error:
        raise MissingExtraError(
            f"{scheme}:// needs packages that are not installed; install them with: "
            "pip install 'medseg[cloud]'"
        ) from error
    except (ValueError, OSError) as error:
        name = type(error).__name__
        raise StorageError(
            f"{scheme}:// lacks settings or credentials, or those that it has are wrong ({name})"
        ) from None


def _choose_options(scheme: str, account: str) -> dict[str, Any]:
    """Return what the client of a store is given: who waits for ever must not wait here."""
    if scheme == "s3":
        # What fails is tried again here. Where each layer does that, an hour goes by.
        is_set = "AWS_MAX_ATTEMPTS" in os.environ
        retries = {} if is_set else {"retries": {"total_max_attempts": 1}}
        return {"config_kwargs": retries}
    if scheme in AZURE_SCHEMES:
        of_account = {"account_name": account} if account else {}
        seconds = {
            "connection_timeout": _CONNECT_SECONDS,
            "read_timeout": _SILENT_SECONDS,
        }
        return seconds | of_account
    import aiohttp

    # Otherwise it is 5 minutes for a whole object, or for ever.
    timeout = aiohttp.ClientTimeout(
        total=None,
        sock_connect=_CONNECT_SECONDS,
        sock_read=_SILENT_SECONDS,
    )
    if scheme == "https":
        # As other programs do, it goes by HTTPS_PROXY.
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    return {"requests_timeout": timeout}
