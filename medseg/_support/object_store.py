"""Objects in S3, Google Cloud Storage, Azure or behind HTTPS: fetched and put whole, by fsspec.

Credentials are the provider's own matter (environment, configuration files, roles of machines), and
so no text of a foreign error is passed on: it may hold a signed address.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from medseg._support.files import atomic_file
from medseg.errors import MedsegError, MissingExtraError

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further try of what may succeed in a moment."""

_AZURE_SCHEMES = ("az", "abfs", "abfss")
_SCHEMES = ("s3", "gs", "gcs", *_AZURE_SCHEMES, "https")
_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<path>.*)", re.DOTALL
)
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_CHUNK = 1 << 20
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_ABSENT = (404, 410)
_FORBIDDEN = (401, 403)

_Result = TypeVar("_Result")


class StorageError(MedsegError):
    """An object cannot be read or written."""


class NoObjectError(StorageError):
    """There is no such object."""


class NoAnswerError(StorageError):
    """A store does not answer, or not with what was asked for."""


def is_address(text: object) -> bool:
    """Tell whether a text is the address of objects, rather than a path of this machine.

    Examples:
        >>> is_address("s3://bucket/scans"), is_address("scans"), is_address("C:/scans")
        (True, False, False)
    """
    return isinstance(text, str) and _ADDRESS.fullmatch(text) is not None


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


def join_address(folder: str, *names: str) -> str:
    """Return the address of what lies below another.

    Examples:
        >>> join_address("s3://bucket/out/", "previews", "a.webp")
        's3://bucket/out/previews/a.webp'
    """
    return "/".join([folder.rstrip("/"), *names])


def list_objects(address: str) -> Iterator[StoredObject]:
    """Give the objects below an address, sorted; their addresses begin as that one is written.

    Raises:
        StorageError: If the store cannot be listed.
        MissingExtraError: If the package for its kind is not installed.
    """
    scheme, system = _open(address)
    if scheme == "https":
        raise StorageError(
            "what lies behind https cannot be listed; give a file, or a table of files",
            source=hide_credentials(address),
        )
    root = _find_path(address).rstrip("/")
    found = _try(lambda: system.find(root, detail=True), address)
    for path, facts in sorted(found.items()):
        if path.endswith("/"):
            continue
        below = path[len(root) :]
        yield _describe(address.rstrip("/") + below, facts)


def look_at(address: str) -> StoredObject:
    """Return the size of an object, and its MD5 if the store states it.

    Raises:
        NoObjectError: If there is none.
        StorageError: If the store does not answer, or does not allow it.
        MissingExtraError: If the package for its kind is not installed.
    """
    _, system = _open(address)
    facts = _try(lambda: system.info(_find_path(address)), address)
    if facts.get("type") == "directory":
        raise NoObjectError(
            "there is no such object", source=hide_credentials(address)
        )
    return _describe(address, facts)


def fetch(stored: StoredObject, file: Path) -> None:
    """Fetch an object: the file appears whole, with the size and the MD5 that the store states.

    Some stores state a tag that looks like an MD5 and is none, as S3 does of objects that it
    encrypts: what arrives twice alike is taken, too.

    Raises:
        NoObjectError: If there is none.
        StorageError: If it cannot be fetched.
        OutputError: If the file cannot be written.
    """
    _, system = _open(stored.address)
    path = _find_path(stored.address)
    arrived: set[str] = set()
    with atomic_file(file) as temporary:

        def get() -> None:
            system.get_file(path, str(temporary))
            if stored.size not in (-1, temporary.stat().st_size):
                raise _DamagedError
            if not stored.md5:
                return
            digest = _hash(temporary)
            is_sure = digest == stored.md5 or digest in arrived
            arrived.add(digest)
            if not is_sure:
                raise _DamagedError

        _try(get, stored.address)


def put(file: Path, address: str) -> None:
    """Put a file: the object appears whole or not at all, and is read back and compared.

    Raises:
        StorageError: If it cannot be put.
    """
    _, system = _open(address)
    path = _find_path(address)

    def upload() -> None:
        system.put_file(str(file), path)
        if system.cat_file(path) != file.read_bytes():
            raise _DamagedError

    _try(upload, address)


def hide_credentials(address: str) -> str:
    """Return an address as people may see it: without signature, user and password.

    Examples:
        >>> hide_credentials("https://anna:secret@host/ct.nii.gz?signature=a/b")
        'https://host/ct.nii.gz'
        >>> hide_credentials("abfs://container@account/ct.nii.gz")
        'abfs://container@account/ct.nii.gz'
    """
    shown = address.partition("?")[0]
    if not is_https(shown):
        return shown
    scheme, separator, rest = shown.partition("://")
    host, slash, path = rest.partition("/")
    return scheme + separator + host.rpartition("@")[2] + slash + path


def find_place(address: str) -> str:
    """Return where an object lies: of HTTPS without the query, which is no part of its name.

    Examples:
        >>> find_place("https://host/ct.nii.gz?signature=a/b"), find_place("s3://bucket/what?")
        ('https://host/ct.nii.gz', 's3://bucket/what?')
    """
    return address.partition("?")[0] if is_https(address) else address


def is_https(address: str) -> bool:
    """Tell whether an address is that of a web server, which lists nothing."""
    return address.startswith("https:")


class _DamagedError(Exception):
    """What arrived is not what was sent."""


def _hash(file: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _describe(address: str, facts: Mapping[str, Any]) -> StoredObject:
    size = facts.get("size")
    return StoredObject(
        address, -1 if size is None else int(size), _find_md5(facts)
    )


def _find_md5(facts: Mapping[str, Any]) -> str:
    """Return the MD5 that a store states, in hex; empty if it states none."""
    encoded = facts.get("md5Hash")
    if isinstance(encoded, str):  # Google's way
        return base64.b64decode(encoded).hex()
    # Of an object that was put in parts, the tag is no MD5, and has another form.
    match = _MD5.fullmatch(str(facts.get("ETag", "")))
    return match[1] if match else ""


def _try(action: Callable[[], _Result], address: str) -> _Result:
    """Do something until it succeeds; what cannot succeed is not tried again.

    Raises:
        NoObjectError: If there is no such object.
        StorageError: If it does not succeed.
    """
    source = hide_credentials(address)
    for wait in (*WAITS, None):
        try:
            return action()
        except Exception as error:
            if _is_of_disk(error):
                raise  # whoever writes the file says so
            if _is_absent(error, source):
                raise NoObjectError(
                    "there is no such object", source=source
                ) from None
            if wait is None or _is_final(error):
                raise _make_error(error, source) from None
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _is_of_disk(error: Exception) -> bool:
    """Tell whether this machine's disk is full, of which no store speaks."""
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def _is_absent(error: Exception, source: str) -> bool:
    """Tell whether a store says that there is no object; fsspec says so of all that fails by HTTPS.

    Args:
        error: What a store raised.
        source: Of what.
    """
    is_missing = isinstance(error, FileNotFoundError)
    if not is_missing or not is_https(source):
        return is_missing
    return error.__cause__ is None or _find_status(error) in _ABSENT


def _find_status(error: Exception) -> int:
    """Return what a web server answered; 0 where that is not known."""
    status = getattr(error.__cause__ or error, "status", 0)
    return status if isinstance(status, int) else 0


def _is_final(error: Exception) -> bool:
    if isinstance(error, PermissionError):
        return True
    if _find_status(error) in _FORBIDDEN:
        return True
    return type(error).__name__.endswith("CredentialsError")


def _make_error(error: Exception, source: str) -> StorageError:
    name = type(error).__name__
    if isinstance(error, _DamagedError):
        what = "arrives damaged, each time"
    elif _is_final(error):
        what = "is not allowed to be read or written with these credentials"
    else:
        what = f"cannot be read or written ({name}), after {len(WAITS)} further tries"
        return NoAnswerError(f"an object {what}", source=source)
    return StorageError(f"an object {what}", source=source)


def _find_path(address: str) -> str:
    """Return what fsspec calls an object."""
    scheme, system = _open(address)
    return (
        address if scheme == "https" else str(system._strip_protocol(address))
    )


def _open(address: str) -> tuple[str, Any]:
    match = _ADDRESS.fullmatch(address)
    scheme = match["scheme"] if match else ""
    if scheme not in _SCHEMES:
        raise StorageError(
            f"addresses of objects begin with {', '.join(f'{one}://' for one in _SCHEMES)}",
            source=hide_credentials(address),
        )
    return scheme, _make_system(scheme, _find_account(address))


def _find_account(address: str) -> str:
    """Return the account of Azure that an address names: ``abfs://container@account.…``."""
    scheme, _, path = address.partition("://")
    host = path.partition("/")[0]
    _, sign, account = host.partition("@")
    # Elsewhere who signs in stands before the sign: https://name:password@host/…
    is_azure = scheme in _AZURE_SCHEMES
    return account.partition(".")[0] if sign and is_azure else ""


@cache
def _make_system(scheme: str, account: str = "") -> Any:
    of_account = {"account_name": account} if account else {}
    try:
        import fsspec

        return fsspec.filesystem(
            scheme.replace("abfss", "abfs"),  # fsspec knows it by that name
            use_listings_cache=False,
            skip_instance_cache=True,
            **of_account,
        )
    except ImportError as error:
        raise MissingExtraError(
            f"{scheme}:// needs packages that are not installed; install them with: "
            "pip install 'medseg[cloud]'"
        ) from error
