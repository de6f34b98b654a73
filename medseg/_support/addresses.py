"""Addresses of objects in stores, and how people may see them: without signature and password."""

from __future__ import annotations

import re
from pathlib import Path

from medseg.errors import OutputError

AZURE_SCHEMES = ("az", "abfs", "abfss")
STORE_SCHEMES = ("s3", "gs", "gcs", *AZURE_SCHEMES)
SCHEMES = (*STORE_SCHEMES, "https")

_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]+)://(?P<path>.*)", re.DOTALL
)
# Of misspelt ones, too: some have one slash.
_BEGIN = re.compile("(?P<scheme>[^:/]*):/+")
# No folder has such a name: capitals, or one slash, as Path("s3://bucket") makes of two.
_MISSPELT = re.compile(
    rf"[a-z][a-z0-9+.-]+://.*|({'|'.join(SCHEMES)}|http|file):/.*",
    re.DOTALL | re.IGNORECASE,
)


def is_address(text: object) -> bool:
    """Tell whether a text is the address of objects, rather than a path of this machine.

    Examples:
        >>> is_address("s3://bucket/scans"), is_address("scans"), is_address("C:/scans")
        (True, False, False)
    """
    return isinstance(text, str) and _MISSPELT.fullmatch(text) is not None


def find_scheme(address: str) -> str:
    """Return the scheme of an address; empty if it is not written as one."""
    match = _ADDRESS.fullmatch(address)
    return match["scheme"] if match else ""


def find_store_address(argument: str) -> str:
    """Return the address of objects that an argument or option is, however misspelt; else nothing.

    Examples:
        >>> find_store_address("--out=S3:/bucket/out"), find_store_address("c:/out")
        ('s3://bucket/out', '')
    """
    text = argument
    if argument.startswith("-"):
        text = argument.partition("=")[2]
    scheme, _, rest = text.partition(":/")
    scheme = scheme.lower()
    if scheme not in STORE_SCHEMES:
        return ""
    return f"{scheme}://{rest.lstrip('/')}"


def refuse_address(path: Path) -> None:
    """Refuse an address where a file of this machine is written: a folder would be called so.

    Raises:
        OutputError: If it is one.
    """
    address = find_store_address(path.as_posix())
    if address:
        raise OutputError(
            "this is an address of an object store, and a file of this machine is written; give "
            "a path",
            source=hide_credentials(address),
        )


def join_address(folder: str, *names: str) -> str:
    """Return the address of what lies below another.

    Examples:
        >>> join_address("s3://bucket/out/", "previews", "a.webp")
        's3://bucket/out/previews/a.webp'
    """
    return "/".join([folder.rstrip("/"), *names])


def hide_credentials(address: str) -> str:
    """Return an address as people may see it: without signature, user and password.

    Examples:
        >>> hide_credentials("https://anna:secret@host/ct.nii.gz?signature=a/b")
        'https://host/ct.nii.gz'
        >>> hide_credentials("abfs://container@account/ct.nii.gz")
        'abfs://container@account/ct.nii.gz'
    """
    shown = address.partition("?")[0]
    match = _BEGIN.match(shown)
    if match is None:
        return shown
    scheme, rest = match["scheme"], shown[match.end() :]
    host, slash, path = rest.partition("/")
    user, sign, server = host.rpartition("@")
    # Of Azure, what stands before the sign is a container.
    if scheme not in AZURE_SCHEMES or ":" in user:
        user = sign = ""
    return f"{match[0]}{user}{sign}{server}{slash}{path}"


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


def find_account(address: str) -> str:
    """Return the account of Azure that an address names: ``abfs://container@account.…``."""
    scheme, _, path = address.partition("://")
    host = path.partition("/")[0]
    _, sign, account = host.partition("@")
    # Elsewhere who signs in stands before the sign: https://name:password@host/…
    is_azure = scheme in AZURE_SCHEMES
    return account.partition(".")[0] if sign and is_azure else ""
